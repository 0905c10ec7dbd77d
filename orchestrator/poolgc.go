package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// strayPooled finds vNICs of pools in unknown VMs, those that are taken by no
// attachment, and those that are neither plugged nor unplugged and nobody is at.
func (o *Orchestrator) strayPooled(ctx context.Context, list []pooled, known map[vnic.ID]string, vms map[string]bool) ([]finding, error) {
	var found []finding
	for _, p := range list {
		what, err := o.strayState(ctx, p, known, vms)
		if err != nil {
			return nil, err
		}
		if what != "" {
			found = append(found, finding{
				fmt.Sprintf("vnic %s of pool %s %s", p.ID, p.pool(), what),
				func(ctx context.Context) error { return o.drainStray(ctx, p) },
			})
		}
	}
	return found, nil
}

// strayState returns what is wrong with a vNIC, as far as the store tells.
func (o *Orchestrator) strayState(ctx context.Context, p pooled, known map[vnic.ID]string, vms map[string]bool) (string, error) {
	_, held := known[p.Attachment]
	switch {
	case !vms[p.VM]:
		return "of an unknown vm", nil
	case p.State == taken && !held:
		return "taken by no attachment", nil
	case p.State == taken || p.State == parked:
		return "", nil
	}
	unlock, ok := o.vnics.TryLock(p.ID)
	if !ok {
		return "", nil // somebody is at it
	}
	defer unlock()
	now, err := o.readPooled(ctx, p.ID)
	if err != nil || now == nil || now.rev != p.rev {
		return "", err
	}
	return "stuck in state " + string(p.State), nil
}

// drainStray unplugs a vNIC whose record is as it was found.
func (o *Orchestrator) drainStray(ctx context.Context, p pooled) error {
	if p.State != taken {
		return o.drain(ctx, p.ID)
	}
	err := o.shift(ctx, &p, draining, func(tx store.Tx) error {
		if it, err := tx.Get(attachmentKey(p.Attachment)); err != nil || it.Exists() {
			return cmp.Or(err, errTaken)
		}
		return nil
	})
	if errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	return o.drain(ctx, p.ID)
}

// brokenPooled finds parked vNICs without device or tap, or with a tap that is in a
// bridge.
func (o *Orchestrator) brokenPooled(ctx context.Context, list []pooled, vms map[string]bool, ports []vnic.Port) ([]finding, error) {
	var found []finding
	for _, p := range list {
		if p.State != parked || !vms[p.VM] || pooledFault(p, ports) == "" {
			continue
		}
		fault, err := o.pooledFault(ctx, p)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			found = append(found, finding{fault, func(ctx context.Context) error { return o.settleIdle(ctx, p) }})
		}
	}
	return found, nil
}

// pooledFault returns what a parked vNIC lacks by what the host says.
func pooledFault(p pooled, ports []vnic.Port) string {
	i := slices.IndexFunc(ports, func(port vnic.Port) bool { return port.ID == p.ID && port.Plug && port.Tap })
	switch {
	case i < 0:
		return fmt.Sprintf("vnic %s of pool %s without its device or tap", p.ID, p.pool())
	case ports[i].Bridged:
		return fmt.Sprintf("tap %s of parked vnic %s of pool %s is in a bridge", p.ID.TapName(), p.ID, p.pool())
	}
	return ""
}

// pooledFault asks the host again, about a vNIC that is parked before and
// afterwards.
func (o *Orchestrator) pooledFault(ctx context.Context, p pooled) (string, error) {
	ports, err := o.ports(ctx, p.VM)
	if errors.Is(err, vnic.ErrUnknownVM) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	now, err := o.readPooled(ctx, p.ID)
	if err != nil || now == nil || now.rev != p.rev {
		return "", err
	}
	return pooledFault(p, ports), nil
}

// settleIdle asks both halves about a vNIC and settles it.
func (o *Orchestrator) settleIdle(ctx context.Context, p pooled) error {
	var t truth
	if o.seen.usable(p.VM) == nil {
		var err error
		if t, err = o.ask(ctx, p.VM); err != nil {
			return err
		}
	}
	if err := o.settlePooled(ctx, p, t); err != nil {
		return err
	}
	o.tendSoon(p.pool())
	return nil
}
