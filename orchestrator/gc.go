package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// finding is something that belongs to no attachment, or an attachment that
// belongs to nobody, with the way to be rid of it.
type finding struct {
	text   string
	remove func(context.Context) error
}

// GC finds devices and taps of no attachment, leases and published ports of no
// attachment, reservations of no VM, attachments that are stuck, have lost their
// device or tap, or whose VM is unknown, and bridges of no network; and removes
// them unless dryRun. A tap that is down or not in its network's bridge, but belongs
// to an attachment, gets back there.
//
// GC returns one line for each finding, such as "tap brf0123456789 of no
// attachment". Attachments on which an operation runs are left alone.
func (o *Orchestrator) GC(ctx context.Context, dryRun bool) ([]string, error) {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect garbage: %w", err)
	}
	defer done()
	host, hostErr := o.inventory(ctx) // before the store: see removeStrays
	if hostErr != nil {
		hostErr = fmt.Errorf("%w; the host was left out", hostErr)
	}
	found, err := o.findings(ctx, host, hostErr == nil)
	if err == nil {
		var coming []finding
		coming, err = o.strayComing(ctx)
		found = append(found, coming...)
	}
	if err != nil {
		return nil, fmt.Errorf("collect garbage: %w", err)
	}
	lines := make([]string, len(found))
	errs := []error{hostErr}
	for i, f := range found {
		lines[i] = f.text
		if dryRun {
			continue
		}
		if err := f.remove(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.text, err))
			continue
		}
		o.log.Info("garbage removed", "what", f.text)
	}
	slices.Sort(lines)
	return lines, wrap(errors.Join(errs...), "collect garbage")
}

// inventory is what is on the host.
type inventory struct {
	ports    []vnic.Port
	networks []vnic.Network
}

func (o *Orchestrator) inventory(ctx context.Context) (inv inventory, err error) {
	if inv.ports, err = o.ports(ctx, ""); err != nil {
		return inv, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Query)
	defer cancel()
	inv.networks, err = o.cfg.Host.Networks(ctx)
	return inv, wrap(err, "ask host")
}

func (o *Orchestrator) findings(ctx context.Context, host inventory, asked bool) ([]finding, error) {
	var list []vnic.Attachment
	var vnics []pooled
	var nets []networkRecord
	var leases []finding
	vms, known := map[string]bool{}, map[vnic.ID]string{} // known: the VM of each attachment and each vNIC of a pool
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		if list, err = all[vnic.Attachment](tx, attachmentPrefix); err != nil {
			return err
		}
		for _, a := range list {
			known[a.ID] = a.Request.VM
		}
		if vnics, err = allPooled(tx); err != nil {
			return err
		}
		for _, p := range vnics {
			known[p.ID] = p.VM
		}
		stands, err := all[stand](tx, selfPrefix)
		if err != nil {
			return err
		}
		for _, s := range stands {
			known[s.ID] = ""
		}
		if nets, err = all[networkRecord](tx, networkPrefix); err != nil {
			return err
		}
		records, err := all[vmRecord](tx, vmPrefix)
		if err != nil {
			return err
		}
		for _, vm := range records {
			vms[vm.Name] = true
		}
		if leases, err = o.strayLeases(tx, known); err != nil {
			return err
		}
		more, err := o.strayPromises(tx, known, vms)
		leases = append(leases, more...)
		return err
	})
	if err != nil {
		return nil, err
	}
	lost, err := o.strayAttachments(ctx, list, vms)
	if err != nil {
		return slices.Concat(leases, lost), err
	}
	leftover, err := o.strayPooled(ctx, vnics, known, vms)
	if err != nil || !asked {
		return slices.Concat(leases, lost, leftover), err
	}
	unfit, err := o.brokenPooled(ctx, vnics, vms, host.ports)
	if err != nil {
		return nil, err
	}
	broken, err := o.brokenAttachments(ctx, list, vms, host.ports)
	// Bridges last: they can go when there is no port left.
	return slices.Concat(o.strayPorts(known, host.ports), leases, lost, leftover, broken, unfit, o.strayNetworks(nets, host.networks)), err
}

func (o *Orchestrator) strayPorts(known map[vnic.ID]string, ports []vnic.Port) []finding {
	var found []finding
	for _, p := range ports {
		if vm, ok := known[p.ID]; ok {
			o.checkOwner(p, vm)
			continue
		}
		remove := func(ctx context.Context) error { return o.unplugStray(ctx, p) }
		if p.Plug {
			found = append(found, finding{fmt.Sprintf("device %s in vm %s of no attachment", p.ID.DeviceID(), p.VM), remove})
		}
		if p.Tap {
			found = append(found, finding{fmt.Sprintf("tap %s of no attachment", p.ID.TapName()), remove})
		}
		if !p.Plug && !p.Tap {
			found = append(found, finding{fmt.Sprintf("packet filter of tap %s, which does not exist", p.ID.TapName()), remove})
		}
	}
	return found
}

// strayNetworks finds bridges that were made for networks which are not there.
func (o *Orchestrator) strayNetworks(known []networkRecord, networks []vnic.Network) []finding {
	var found []finding
	for _, n := range networks {
		if slices.ContainsFunc(known, func(k networkRecord) bool { return k.Name == n.Name || k.Bridge == n.Bridge }) {
			continue
		}
		found = append(found, finding{
			fmt.Sprintf("bridge of network %s, which does not exist", n.Name),
			func(ctx context.Context) error { return o.removeStrayNetwork(ctx, n) },
		})
	}
	return found
}

// removeStrayNetwork removes a network from the host, unless one that needs the
// bridge was made meanwhile.
func (o *Orchestrator) removeStrayNetwork(ctx context.Context, n vnic.Network) error {
	return o.named(ctx, networkPrefix+n.Name, func() error {
		nets, err := o.Networks(ctx)
		if err != nil || slices.ContainsFunc(nets, func(k vnic.Network) bool { return k.Name == n.Name || k.Bridge == n.Bridge }) {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
		defer cancel()
		return late(ctx, "host", o.cfg.Deadlines.Network, o.cfg.Host.RemoveNetwork(ctx, n))
	})
}

func (o *Orchestrator) strayLeases(tx store.ReadTx, known map[vnic.ID]string) ([]finding, error) {
	var found []finding
	leases, err := o.pool.Leases(tx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if _, ok := known[l.Owner.ID]; !ok && l.VM == "" {
			found = append(found, finding{
				fmt.Sprintf("address %s of network %s leased to no attachment", l.Address, l.Network),
				o.unless(attachmentKey(l.Owner.ID), func(tx store.Tx) error { return o.pool.FreeLease(tx, l) }),
			})
		}
	}
	macs, err := o.pool.MACs(tx)
	if err != nil {
		return nil, err
	}
	for _, m := range macs {
		if _, ok := known[m.Owner.ID]; !ok {
			found = append(found, finding{
				fmt.Sprintf("mac %s leased to no attachment", m.MAC),
				o.unlessVNIC(m.Owner.ID, func(tx store.Tx) error { return o.pool.FreeMAC(tx, m.Owner, m.MAC) }),
			})
		}
	}
	return found, nil
}

func (o *Orchestrator) strayAttachments(ctx context.Context, list []vnic.Attachment, vms map[string]bool) ([]finding, error) {
	var found []finding
	for _, a := range list {
		text := fmt.Sprintf("attachment %s (%s)", a.ID, describe(a.Request.Key))
		if !vms[a.Request.VM] {
			found = append(found, finding{text + " of an unknown vm", func(ctx context.Context) error {
				return o.locked(ctx, a.ID, func(r *record) error { return o.undo(ctx, r) })
			}})
			continue
		}
		r, err := o.stuck(ctx, a)
		if err != nil {
			return nil, err
		}
		if r != nil {
			text += " stuck in phase " + string(r.Phase)
			if r.LastError != "" {
				text += ": " + r.LastError
			}
			found = append(found, finding{text, func(ctx context.Context) error { return o.undoLeftover(ctx, a.ID) }})
		}
	}
	return found, nil
}

// stuck returns the attachment if it is unfinished and no operation runs on it.
func (o *Orchestrator) stuck(ctx context.Context, a vnic.Attachment) (*record, error) {
	unlock, ok := o.locks.TryLock(a.Request.Key)
	if !ok {
		return nil, nil
	}
	defer unlock()
	r, err := o.read(ctx, a.ID)
	if err != nil || r == nil || r.Phase == vnic.PhaseReady {
		return nil, err
	}
	return r, nil
}

// brokenAttachments finds those that are ready, and whose device or tap is gone
// or out of its bridge.
func (o *Orchestrator) brokenAttachments(ctx context.Context, list []vnic.Attachment, vms map[string]bool, ports []vnic.Port) ([]finding, error) {
	whole := map[vnic.ID]bool{}
	for _, p := range ports {
		whole[p.ID] = p.Plug && p.Tap && p.Bridged
	}
	var found []finding
	for _, a := range list {
		if a.Phase != vnic.PhaseReady || whole[a.VNIC()] || !vms[a.Request.VM] {
			continue
		}
		fault, err := o.fault(ctx, a)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			found = append(found, finding{fault, func(ctx context.Context) error {
				return o.locked(ctx, a.ID, func(r *record) error { return o.check(ctx, r) })
			}})
		}
	}
	return found, nil
}

// fault asks again what a ready attachment lacks: what was ready before, and is
// ready afterwards, has to be in the host's answer.
func (o *Orchestrator) fault(ctx context.Context, a vnic.Attachment) (string, error) {
	ports, err := o.ports(ctx, a.Request.VM)
	if errors.Is(err, vnic.ErrUnknownVM) {
		return "", nil // just removed, or not yet known to the host half
	}
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("attachment %s (%s) without its device or tap", a.ID, describe(a.Request.Key))
	i := slices.IndexFunc(ports, func(p vnic.Port) bool { return p.ID == a.VNIC() && p.Plug && p.Tap })
	switch {
	case i >= 0 && ports[i].Bridged:
		return "", nil
	case i >= 0:
		text = fmt.Sprintf("tap %s of attachment %s (%s) is not up in its network's bridge", a.VNIC().TapName(), a.ID, describe(a.Request.Key))
	}
	r, err := o.read(ctx, a.ID)
	if err != nil || r == nil || r.Phase != vnic.PhaseReady {
		return "", err
	}
	return text, nil
}
