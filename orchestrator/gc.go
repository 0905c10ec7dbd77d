package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// finding is something that belongs to no attachment, or an attachment that
// belongs to nobody, with the way to be rid of it.
type finding struct {
	text   string
	remove func(context.Context) error
}

// GC finds devices and taps of no attachment, leases of no attachment, and
// attachments that are stuck, have lost their device or tap, or whose VM is
// unknown; and removes them unless dryRun. It returns one line for each, such as "tap brf0123456789 of no
// attachment". Attachments on which an operation runs are left alone.
func (o *Orchestrator) GC(ctx context.Context, dryRun bool) ([]string, error) {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect garbage: %w", err)
	}
	defer done()
	ports, hostErr := o.ports(ctx, "") // before the store: see removeStrays
	if hostErr != nil {
		hostErr = fmt.Errorf("%w; the host was left out", hostErr)
	}
	found, err := o.findings(ctx, ports, hostErr == nil)
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

func (o *Orchestrator) findings(ctx context.Context, ports []vnic.Port, asked bool) ([]finding, error) {
	var list []vnic.Attachment
	var leases []finding
	vms, known := map[string]bool{}, map[vnic.ID]bool{}
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		if list, err = all[vnic.Attachment](tx, attachmentPrefix); err != nil {
			return err
		}
		for _, a := range list {
			known[a.ID] = true
		}
		records, err := all[vmRecord](tx, vmPrefix)
		if err != nil {
			return err
		}
		for _, vm := range records {
			vms[vm.Name] = true
		}
		leases, err = o.strayLeases(tx, known)
		return err
	})
	if err != nil {
		return nil, err
	}
	lost, err := o.strayAttachments(ctx, list, vms)
	if err != nil || !asked {
		return slices.Concat(leases, lost), err
	}
	broken, err := o.brokenAttachments(ctx, list, vms, ports)
	return slices.Concat(o.strayPorts(known, ports), leases, lost, broken), err
}

func (o *Orchestrator) strayPorts(known map[vnic.ID]bool, ports []vnic.Port) []finding {
	var found []finding
	for _, p := range ports {
		if known[p.ID] {
			continue
		}
		remove := func(ctx context.Context) error { return o.unplugStray(ctx, p) }
		if p.Plug {
			found = append(found, finding{fmt.Sprintf("device %s in vm %s of no attachment", p.ID.DeviceID(), p.VM), remove})
		}
		if p.Tap {
			found = append(found, finding{fmt.Sprintf("tap %s of no attachment", p.ID.TapName()), remove})
		}
	}
	return found
}

func (o *Orchestrator) strayLeases(tx store.ReadTx, known map[vnic.ID]bool) ([]finding, error) {
	var found []finding
	leases, err := o.pool.Leases(tx)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if !known[l.Owner.ID] {
			found = append(found, finding{
				fmt.Sprintf("address %s of network %s leased to no attachment", l.Address, l.Network),
				o.freeing(l.Owner, func(tx store.Tx) error { return o.pool.FreeLease(tx, l) }),
			})
		}
	}
	macs, err := o.pool.MACs(tx)
	if err != nil {
		return nil, err
	}
	for _, m := range macs {
		if !known[m.Owner.ID] {
			found = append(found, finding{
				fmt.Sprintf("mac %s leased to no attachment", m.MAC),
				o.freeing(m.Owner, func(tx store.Tx) error { return o.pool.FreeMAC(tx, m.Owner, m.MAC) }),
			})
		}
	}
	return found, nil
}

// freeing returns a function that runs free when the owner still isn't there.
func (o *Orchestrator) freeing(owner ipam.Owner, free func(store.Tx) error) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
			if it, err := tx.Get(attachmentKey(owner.ID)); err != nil || it.Exists() {
				return err
			}
			return free(tx)
		})
		return err
	}
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

// brokenAttachments finds those that are ready, and whose device or tap is gone.
func (o *Orchestrator) brokenAttachments(ctx context.Context, list []vnic.Attachment, vms map[string]bool, ports []vnic.Port) ([]finding, error) {
	whole := map[vnic.ID]bool{}
	for _, p := range ports {
		whole[p.ID] = p.Plug && p.Tap
	}
	var found []finding
	for _, a := range list {
		if a.Phase != vnic.PhaseReady || whole[a.ID] || !vms[a.Request.VM] {
			continue
		}
		broken, err := o.broken(ctx, a)
		if err != nil {
			return nil, err
		}
		if broken {
			found = append(found, finding{
				fmt.Sprintf("attachment %s (%s) without its device or tap", a.ID, describe(a.Request.Key)),
				func(ctx context.Context) error {
					return o.locked(ctx, a.ID, func(r *record) error { return o.check(ctx, r) })
				},
			})
		}
	}
	return found, nil
}

// broken asks again: what was ready before, and is ready afterwards, has to be
// in the host's answer.
func (o *Orchestrator) broken(ctx context.Context, a vnic.Attachment) (bool, error) {
	ports, err := o.ports(ctx, a.Request.VM)
	if errors.Is(err, vnic.ErrUnknownVM) {
		return false, nil // just removed, or not yet known to the host half
	}
	if err != nil || slices.ContainsFunc(ports, func(p vnic.Port) bool { return p.ID == a.ID && p.Plug && p.Tap }) {
		return false, err
	}
	r, err := o.read(ctx, a.ID)
	return r != nil && r.Phase == vnic.PhaseReady, err
}
