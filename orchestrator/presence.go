package orchestrator

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// presence is a network that is on this hypervisor, if only in part. Its fields are
// guarded by the mutex of uses.
type presence struct {
	net     vnic.Network // as it was made
	made    bool         // and is followed; false: it is being made or removed
	anew    bool         // it was made in place of another of its name, whose pools may be left
	entered int          // how often a vNIC came
}

// differs says whether a network is another one than that which was made.
func (p *presence) differs(n vnic.Network) bool { return compareNetworks(p.net, n.WithKind()) != nil }

// begin notes that a network is about to be made.
func (u *uses) begin(n vnic.Network) *presence {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.up == nil {
		u.up = map[string]*presence{}
	}
	p := u.up[n.Name]
	if p == nil {
		p = &presence{net: n}
		u.up[n.Name] = p
	}
	if p.differs(n) {
		p.anew, p.made = true, false
	}
	p.net = n
	return p
}

// get returns a network that is here, nil when it is not, and how often a vNIC has come.
func (u *uses) get(name string) (p *presence, entered int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p = u.up[name]; p != nil {
		entered = p.entered
	}
	return p, entered
}

// names returns the networks that are here.
func (u *uses) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.up))
}

// isUp says whether a network is here, and made.
func (o *Orchestrator) isUp(name string) bool {
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	p := o.uses.up[name]
	return p != nil && p.made
}

// reenter makes the networks again that are here and needed, after others released this
// hypervisor, and leaves the rest: what it had of its own in overlays is gone from the
// store, and may be another's by now. What fails is tried again in the background.
func (o *Orchestrator) reenter(ctx context.Context) error {
	var errs []error
	for _, name := range o.uses.names() {
		err := o.named(ctx, herePrefix+name, func() error { return o.enterAgain(ctx, name) })
		errs = append(errs, wrap(err, "enter network %s again", name))
	}
	err := errors.Join(errs...)
	if err != nil {
		o.queue.keep("enter networks again", o.reenter)
	}
	return err
}

// enterAgain leaves a network, or makes it again when that can't be yet, under its lock.
func (o *Orchestrator) enterAgain(ctx context.Context, name string) error {
	left := o.leaveNetwork(ctx, name)
	if p, _ := o.uses.get(name); p == nil {
		return left
	}
	err := o.bringUp(ctx, name)
	if errors.Is(err, vnic.ErrUnknownNetwork) {
		err = nil // it is left when nothing of it is here any more
	}
	return errors.Join(left, err)
}

// networkChanged follows what another hypervisor did to a network.
func (o *Orchestrator) networkChanged(name string) {
	if o.cfg.Cluster != nil {
		o.queue.add("follow network "+name, func(ctx context.Context) error { return o.followNetwork(ctx, name) })
	}
}

func (o *Orchestrator) followNetwork(ctx context.Context, name string) error {
	n, err := o.networkRecord(ctx, name)
	gone := n.Name == "" || n.Removing
	if err != nil || !gone && !o.isAnother(n.Network) {
		return err
	}
	if err := o.dropPools(ctx, func(k poolID) bool { return k.network == name }); err != nil {
		return err
	}
	err = o.named(ctx, herePrefix+name, func() error {
		if gone {
			return o.leaveNetwork(ctx, name)
		}
		return o.exchange(ctx, name)
	})
	if err != nil || n.Name != "" {
		return err
	}
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error { return o.pool.Forget(tx, name) })
	return err
}

// isAnother says whether a network was removed and made anew since it came here.
func (o *Orchestrator) isAnother(n vnic.Network) bool {
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	p := o.uses.up[n.Name]
	return p != nil && (p.anew || p.differs(n))
}

// exchange puts a network in the place of an earlier one of its name, under its lock.
func (o *Orchestrator) exchange(ctx context.Context, name string) error {
	o.fabric.Drop(name)
	if err := o.enterAgain(ctx, name); err != nil {
		return err
	}
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	if p := o.uses.up[name]; p != nil {
		p.anew = false
	}
	return nil
}

// sweepNetworks removes from this hypervisor the networks that an earlier daemon made
// and nothing here needs. It does nothing before it is known which ones services need:
// it is called again then.
func (o *Orchestrator) sweepNetworks(ctx context.Context) error {
	o.uses.mu.Lock()
	known := o.uses.needed != nil
	o.uses.mu.Unlock()
	if !known {
		return nil
	}
	found, err := o.cfg.Host.Networks(ctx)
	if err != nil {
		return err
	}
	stands, err := o.stands(ctx)
	if err != nil {
		return err
	}
	for _, name := range stands {
		if !slices.ContainsFunc(found, func(n vnic.Network) bool { return n.Name == name }) {
			found = append(found, vnic.Network{Name: name, Bridge: vnic.BridgeName(name)})
		}
	}
	var errs []error
	for _, n := range found {
		err := o.named(ctx, herePrefix+n.Name, func() error { return o.sweepNetwork(ctx, n) })
		errs = append(errs, wrap(err, "remove network %s", n.Name))
	}
	return errors.Join(errs...)
}

// sweepNetwork removes one, under its lock.
func (o *Orchestrator) sweepNetwork(ctx context.Context, n vnic.Network) error {
	used, err := o.usesNetwork(ctx, n.Name)
	if err != nil || used {
		return err
	}
	u := &o.uses
	u.mu.Lock()
	stays := u.up[n.Name] != nil || u.coming[n.Name] > 0 || u.needed[n.Name]
	u.mu.Unlock()
	if stays {
		return nil
	}
	if err := o.removeFromHost(ctx, n); err != nil {
		return err
	}
	return o.dropStand(ctx, n.Name)
}

// stands returns the networks in which this hypervisor has addresses of its own.
func (o *Orchestrator) stands(ctx context.Context) (names []string, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		names = nil
		items, err := tx.Scan(selfPrefix, 0)
		for _, it := range items {
			names = append(names, strings.TrimPrefix(it.Key, selfPrefix))
		}
		return err
	})
	return names, err
}
