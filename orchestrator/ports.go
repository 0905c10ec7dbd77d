package orchestrator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// anyAddress stands in the key of a port that is published on every address.
const anyAddress = "any"

// portsOf is the prefix of the keys of a port on all addresses.
func portsOf(m vnic.PortMapping) string {
	return fmt.Sprintf("%s%s/%d/", portPrefix, m.Protocol, m.HostPort)
}

// hostSide names the hypervisor's port of a mapping.
func hostSide(m vnic.PortMapping) string {
	if !m.HostIP.IsValid() {
		return fmt.Sprintf("%d/%s", m.HostPort, m.Protocol)
	}
	return netip.AddrPortFrom(m.HostIP, m.HostPort).String() + "/" + m.Protocol
}

func portKey(m vnic.PortMapping) string {
	if !m.HostIP.IsValid() {
		return portsOf(m) + anyAddress
	}
	return portsOf(m) + m.HostIP.String()
}

// keepTunnels returns a [vnic.TakenError] if one of the ports is that by which
// hypervisors exchange the frames of overlays, where there may be some.
func (o *Orchestrator) keepTunnels(ports ...vnic.PortMapping) error {
	for _, m := range ports {
		if o.cfg.Cluster != nil && m.Protocol == vnic.UDP && m.HostPort == vnic.VXLANPort {
			return &vnic.TakenError{What: "port " + hostSide(m), Why: "carries the frames of overlays (VXLAN); choose another", Err: vnic.ErrPortTaken}
		}
	}
	return nil
}

// takePorts writes down that an attachment has ports published, or returns a
// [vnic.TakenError] that names the attachment which has one of them. The index is
// the hypervisor's own.
func takePorts(tx store.Tx, id vnic.ID, ports []vnic.PortMapping) error {
	for _, m := range ports {
		items, err := tx.Scan(portsOf(m), 0)
		if err != nil {
			return err
		}
		key := portKey(m)
		for _, it := range items {
			both := it.Key == key || !m.HostIP.IsValid() || strings.HasSuffix(it.Key, "/"+anyAddress)
			if both && string(it.Value) != string(id) {
				why := "is published for attachment " + string(it.Value) + "; choose another, or detach that one"
				return &vnic.TakenError{What: "port " + hostSide(m), Why: why, Err: vnic.ErrPortTaken}
			}
		}
		if err := tx.Put(key, []byte(id)); err != nil {
			return err
		}
	}
	return nil
}

// dropPorts forgets ports of an attachment.
func dropPorts(tx store.Tx, id vnic.ID, ports []vnic.PortMapping) error {
	for _, m := range ports {
		it, err := tx.Get(portKey(m))
		if err != nil {
			return err
		}
		if string(it.Value) != string(id) {
			continue
		}
		if err := tx.Delete(it.Key); err != nil {
			return err
		}
	}
	return nil
}

// Publish sets the ports of a ready attachment that are published, and returns
// when they are, or when those before are again. A port that another attachment
// or another program has is a [vnic.ErrPortTaken]. For an attachment that a guest
// asked for, more than [MaxPortsPerVM] are a [vnic.ErrForbidden].
func (o *Orchestrator) Publish(ctx context.Context, id vnic.ID, ports []vnic.PortMapping) (vnic.Attachment, error) {
	var a vnic.Attachment
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return a, fmt.Errorf("publish ports of %s: %w", id, err)
	}
	defer done()
	err = fmt.Errorf("see `brfuse list`: %w", vnic.ErrNotFound)
	lerr := o.locked(ctx, id, func(r *record) error {
		err = o.publish(ctx, r, slices.Clone(ports))
		a = r.Attachment
		return nil
	})
	if lerr != nil {
		err = lerr
	}
	return a, wrap(err, "publish ports of %s", id)
}

// publish is Publish under the lock of the key.
func (o *Orchestrator) publish(ctx context.Context, r *record, ports []vnic.PortMapping) error {
	if r.Phase != vnic.PhaseReady {
		return fmt.Errorf("it is not ready but %s: %w", r.Phase, vnic.ErrDiffers)
	}
	req := r.Request
	req.Ports = ports
	if _, err := req.Complete(); err != nil {
		return err
	}
	if err := o.keepTunnels(ports...); err != nil {
		return err
	}
	before := r.Request.Ports
	err := o.setPorts(ctx, r, ports, func(tx store.ReadTx) error { return portQuota(tx, r.Request, ports) })
	if err != nil {
		return err
	}
	err = o.carryPorts(ctx, r)
	if err == nil {
		o.logFor(r).Info("ports published", "ports", ports)
		return nil
	}
	back := context.WithoutCancel(ctx)
	rerr := o.setPorts(back, r, before, func(store.ReadTx) error { return nil })
	if rerr == nil {
		rerr = o.republish(back, r)
	}
	if rerr != nil {
		o.reconcileSoon(r.Request.VM)
		return fmt.Errorf("%w; undoing it goes on in the background, for it failed too: %w", err, rerr)
	}
	return err
}

// carryPorts has the host half publish what was just written down.
func (o *Orchestrator) carryPorts(ctx context.Context, r *record) error {
	if err := failpoint.Hit("publish.recorded"); err != nil {
		return err
	}
	if err := o.plugAgain(ctx, r); err != nil {
		return err
	}
	if err := failpoint.Hit("publish.plugged"); err != nil {
		return err
	}
	return o.published(ctx, r)
}

// setPorts writes down which ports the host half is about to have. It keeps those
// before for the attachment until that is done, so that it can go back.
func (o *Orchestrator) setPorts(ctx context.Context, r *record, ports []vnic.PortMapping, may func(store.ReadTx) error) error {
	next := *r
	next.Former, next.Request.Ports, next.Publishing = r.held(), ports, true
	return o.replace(ctx, r, &next, func(tx store.Tx) error {
		if err := may(tx); err != nil {
			return err
		}
		return takePorts(tx, r.ID, ports)
	})
}

// replace writes next in place of r, and with it what fn does.
func (o *Orchestrator) replace(ctx context.Context, r, next *record, fn func(store.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	rev, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		it, err := tx.Get(attachmentKey(r.ID))
		if err != nil {
			return err
		}
		if it.Rev != r.rev {
			return fmt.Errorf("record of %s: it has revision %d, not %d: %w", r.ID, it.Rev, r.rev, store.ErrChanged)
		}
		if err := fn(tx); err != nil {
			return err
		}
		next.Updated = time.Now()
		return save(tx, it.Key, next)
	})
	if err != nil {
		return err
	}
	*r = *next
	r.rev = rev
	return nil
}

// republish has the host half publish what is written down.
func (o *Orchestrator) republish(ctx context.Context, r *record) error {
	if err := o.plugAgain(ctx, r); err != nil {
		return err
	}
	return o.published(ctx, r)
}

// published writes down that the host half has what the request says, and no more.
func (o *Orchestrator) published(ctx context.Context, r *record) error {
	if !r.Publishing {
		return nil
	}
	next := *r
	next.Former, next.Publishing = nil, false
	return o.replace(context.WithoutCancel(ctx), r, &next, func(tx store.Tx) error {
		if err := dropPorts(tx, r.ID, r.Former); err != nil {
			return err
		}
		return takePorts(tx, r.ID, r.Request.Ports) // those that are in both
	})
}

// publishAgain is republish for an attachment that has something to publish or to
// limit, or whose Publish did not end.
func (o *Orchestrator) publishAgain(ctx context.Context, r *record) error {
	if len(r.Request.Ports) == 0 && r.Request.Bandwidth == (vnic.Bandwidth{}) && !r.Publishing {
		return nil
	}
	return wrap(o.republish(ctx, r), "restore published ports and limits")
}
