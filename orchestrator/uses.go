package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// uses are the networks that this hypervisor is in, when several share a store: it
// makes a network when the first vNIC of it comes, and removes it after the last.
type uses struct {
	mu     sync.Mutex
	coming map[string]int  // guarded by mu; vNICs that are being plugged
	up     map[string]bool // guarded by mu; true: made and followed, false: being removed
	needed map[string]bool // guarded by mu; published services lead there
}

// herePrefix begins the name of the lock of a network on this hypervisor. It is taken
// behind that of the network itself, and while a vNIC is plugged.
const herePrefix = "here/"

// lazyHost is a Host that makes networks when vNICs of them come.
type lazyHost struct {
	Host
	o *Orchestrator
}

// Plug implements [Host].
func (h lazyHost) Plug(ctx context.Context, p vnic.Plug) (vnic.Port, error) {
	leave, err := h.o.enterNetwork(ctx, p.Network)
	if err != nil {
		return vnic.Port{}, err
	}
	defer leave()
	return h.Host.Plug(ctx, p)
}

// Unpark implements [Host].
func (h lazyHost) Unpark(ctx context.Context, p vnic.Plug) error {
	leave, err := h.o.enterNetwork(ctx, p.Network)
	if err != nil {
		return err
	}
	defer leave()
	return h.Host.Unpark(ctx, p)
}

// enterNetwork makes a network unless it is there, and keeps it until leave.
func (o *Orchestrator) enterNetwork(ctx context.Context, name string) (leave func(), err error) {
	u := &o.uses
	u.mu.Lock()
	if u.coming == nil {
		u.coming = map[string]int{}
	}
	u.coming[name]++
	up := u.up[name]
	u.mu.Unlock()
	leave = func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.coming[name]--; u.coming[name] == 0 {
			delete(u.coming, name)
		}
	}
	if up {
		return leave, nil
	}
	err = o.named(ctx, herePrefix+name, func() error { return o.bringUp(ctx, name) })
	if err != nil {
		leave()
		return nil, fmt.Errorf("make network %s here: %w", name, err)
	}
	return leave, nil
}

func (o *Orchestrator) isUp(name string) bool {
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	return o.uses.up[name]
}

// bringUp makes a network on this hypervisor, under its lock.
func (o *Orchestrator) bringUp(ctx context.Context, name string) error {
	n, err := o.networkRecord(ctx, name)
	switch {
	case err != nil:
		return err
	case n.Name == "":
		return fmt.Errorf("it does not exist; see `brfuse network create`: %w", vnic.ErrUnknownNetwork)
	}
	if err := o.setNetwork(ctx, n.Network); err != nil {
		return err
	}
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	if o.uses.up == nil {
		o.uses.up = map[string]bool{}
	}
	o.uses.up[name] = true
	return nil
}

// networkRecord returns a network, an empty one when there is none.
func (o *Orchestrator) networkRecord(ctx context.Context, name string) (n networkRecord, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		n = networkRecord{}
		_, err := load(tx, networkPrefix+name, &n)
		return err
	})
	return n, err
}

// leaveSoon has networks removed from this hypervisor that it needs no more.
func (o *Orchestrator) leaveSoon() {
	if o.cfg.Cluster != nil {
		o.queue.add("leave networks", o.leaveNetworks)
	}
}

func (o *Orchestrator) leaveNetworks(ctx context.Context) error {
	o.uses.mu.Lock()
	up := maps.Clone(o.uses.up)
	o.uses.mu.Unlock()
	var errs []error
	for name := range up {
		err := o.named(ctx, herePrefix+name, func() error { return o.leaveNetwork(ctx, name) })
		errs = append(errs, wrap(err, "leave network %s", name))
	}
	return errors.Join(errs...)
}

// leaveNetwork removes a network from this hypervisor unless it is needed, under its
// lock.
func (o *Orchestrator) leaveNetwork(ctx context.Context, name string) error {
	used, err := o.usesNetwork(ctx, name)
	if err != nil || used {
		return err
	}
	u := &o.uses
	u.mu.Lock()
	if _, there := u.up[name]; !there || u.coming[name] > 0 || u.needed[name] {
		u.mu.Unlock()
		return nil
	}
	u.up[name] = false
	u.mu.Unlock()
	n := vnic.Network{Name: name, Bridge: vnic.BridgeName(name)}
	if r, err := o.networkRecord(ctx, name); err != nil {
		return err
	} else if r.Name != "" {
		n = r.Network
	}
	o.fabric.Drop(name)
	if err := o.removeFromHost(ctx, n); err != nil {
		return err
	}
	if err := o.dropStand(ctx, name); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.up, name)
	return nil
}

func (o *Orchestrator) removeFromHost(ctx context.Context, n vnic.Network) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
	defer cancel()
	return late(ctx, "host", o.cfg.Deadlines.Network, o.cfg.Host.RemoveNetwork(ctx, n))
}

// usesNetwork says whether this hypervisor has a vNIC of a network.
func (o *Orchestrator) usesNetwork(ctx context.Context, name string) (used bool, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		used = false
		list, err := all[vnic.Attachment](tx, attachmentPrefix)
		if err != nil {
			return err
		}
		vnics, err := allPooled(tx)
		if err != nil {
			return err
		}
		for _, a := range list {
			used = used || a.Request.Network == name
		}
		for _, p := range vnics {
			used = used || p.Network == name
		}
		return nil
	})
	return used, err
}

// networkChanged follows what another hypervisor did to a network.
func (o *Orchestrator) networkChanged(name string) {
	if o.cfg.Cluster != nil {
		o.queue.add("follow network "+name, func(ctx context.Context) error { return o.followNetwork(ctx, name) })
	}
}

func (o *Orchestrator) followNetwork(ctx context.Context, name string) error {
	n, err := o.networkRecord(ctx, name)
	if err != nil || n.Name != "" && !n.Removing {
		return err
	}
	if err := o.dropPools(ctx, func(k poolID) bool { return k.network == name }); err != nil {
		return err
	}
	if err := o.named(ctx, herePrefix+name, func() error { return o.leaveNetwork(ctx, name) }); err != nil || n.Name != "" {
		return err
	}
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error { return o.pool.Forget(tx, name) })
	return err
}

// networksNeeded follows which networks published services lead into.
func (o *Orchestrator) networksNeeded(names map[string]bool) {
	if o.cfg.Cluster == nil {
		return
	}
	o.uses.mu.Lock()
	o.uses.needed = names
	o.uses.mu.Unlock()
	o.queue.add("enter networks of services", o.enterNeeded)
	o.leaveSoon()
}

func (o *Orchestrator) enterNeeded(ctx context.Context) error {
	o.uses.mu.Lock()
	names := maps.Clone(o.uses.needed)
	o.uses.mu.Unlock()
	var errs []error
	for name := range names {
		leave, err := o.enterNetwork(ctx, name)
		if err == nil {
			leave()
		}
		if !errors.Is(err, vnic.ErrUnknownNetwork) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// follow starts to carry what all know to this hypervisor.
func (o *Orchestrator) follow() {
	cfg := fabric.Config{
		Store: o.shared, Self: o.Hypervisor(), Names: o.cfg.Names, Services: o.cfg.Services, Log: o.log,
		Changed: o.networkChanged, Needed: o.networksNeeded,
	}
	if c := o.cfg.Cluster; c != nil {
		cfg.Overlay = c.Overlay
	}
	o.fabric = fabric.Start(cfg)
}

// sweepNetworks removes from this hypervisor the networks that an earlier daemon made
// and nothing here needs.
func (o *Orchestrator) sweepNetworks(ctx context.Context) error {
	found, err := o.cfg.Host.Networks(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range found {
		err := o.named(ctx, herePrefix+n.Name, func() error {
			used, err := o.usesNetwork(ctx, n.Name)
			if err != nil || used || o.isUp(n.Name) {
				return err
			}
			if err := o.removeFromHost(ctx, n); err != nil {
				return err
			}
			return o.dropStand(ctx, n.Name)
		})
		errs = append(errs, wrap(err, "remove network %s", n.Name))
	}
	return errors.Join(errs...)
}
