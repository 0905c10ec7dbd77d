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
	coming map[string]int       // guarded by mu; vNICs that are being plugged
	up     map[string]*presence // guarded by mu; networks that are here, if only in part
	needed map[string]bool      // guarded by mu; published services lead there; nil until the store was read
	// user is the key of a vNIC's record that was in the network when it was last looked
	// for one: while it is there, no other is looked for. Guarded by mu.
	user map[string]string
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
	p := u.up[name]
	up := p != nil && p.made
	if up {
		p.entered++
	}
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

// bringUp makes a network on this hypervisor, under its lock. When it fails, what it had
// made by then is leaveNetwork's to remove.
func (o *Orchestrator) bringUp(ctx context.Context, name string) error {
	n, err := o.networkRecord(ctx, name)
	switch {
	case err != nil:
		return err
	case n.Name == "":
		return fmt.Errorf("it does not exist; see `brfuse network create`: %w", vnic.ErrUnknownNetwork)
	}
	if err := o.carries(n.Network); err != nil {
		return err
	}
	p := o.uses.begin(n.Network)
	if err := o.setNetwork(ctx, n.Network); err != nil {
		return err
	}
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	p.made = true
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
	n, leave, err := o.withdraw(ctx, name)
	if err != nil || !leave {
		return err
	}
	o.fabric.Drop(name)
	if err := o.removeFromHost(ctx, n); err != nil {
		return err
	}
	if err := o.dropStand(ctx, name); err != nil {
		return err
	}
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	delete(o.uses.up, name)
	return nil
}

// withdraw notes that a network is about to be removed, and returns it as it was made,
// unless it is needed or not here.
func (o *Orchestrator) withdraw(ctx context.Context, name string) (n vnic.Network, leave bool, err error) {
	u := &o.uses
	for {
		p, entered := u.get(name)
		if p == nil {
			return n, false, nil
		}
		if used, err := o.usesNetwork(ctx, name); err != nil || used {
			return n, false, err
		}
		u.mu.Lock()
		came := p.entered != entered // a vNIC, which usesNetwork may not have seen
		stays := u.coming[name] > 0 || u.needed[name]
		if !came && !stays {
			p.made = false
		}
		n = p.net
		u.mu.Unlock()
		if !came {
			return n, !stays, nil
		}
	}
}

func (o *Orchestrator) removeFromHost(ctx context.Context, n vnic.Network) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Network)
	defer cancel()
	return late(ctx, "host", o.cfg.Deadlines.Network, o.cfg.Host.RemoveNetwork(ctx, n))
}

// usesNetwork says whether this hypervisor has a vNIC of a network.
func (o *Orchestrator) usesNetwork(ctx context.Context, name string) (used bool, err error) {
	o.uses.mu.Lock()
	user := o.uses.user[name]
	o.uses.mu.Unlock()
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		if user != "" {
			if it, err := tx.Get(user); err != nil || it.Exists() {
				return err
			}
		}
		user, err = userOf(tx, name)
		return err
	})
	if err != nil {
		return false, err
	}
	o.uses.mu.Lock()
	defer o.uses.mu.Unlock()
	if user == "" {
		delete(o.uses.user, name)
		return false, nil
	}
	if o.uses.user == nil {
		o.uses.user = map[string]string{}
	}
	o.uses.user[name] = user
	return true, nil
}

// userOf returns the key of the record of a vNIC that is in a network, empty when there is
// none. A record's network doesn't change, and its id is not used again.
func userOf(tx store.ReadTx, network string) (string, error) {
	items, err := tx.Scan(attachmentPrefix, 0)
	if err != nil {
		return "", err
	}
	for _, it := range items {
		var a vnic.Attachment
		if err := decode(it, &a); err != nil {
			return "", err
		}
		if a.Request.Network == network {
			return it.Key, nil
		}
	}
	vnics, err := allPooled(tx)
	for _, p := range vnics {
		if p.Network == network {
			return pooledKey(p.ID), err
		}
	}
	return "", err
}

// networksNeeded follows which networks published services lead into.
func (o *Orchestrator) networksNeeded(names map[string]bool) {
	if o.cfg.Cluster == nil {
		return
	}
	o.uses.mu.Lock()
	first := o.uses.needed == nil
	o.uses.needed = names
	o.uses.mu.Unlock()
	o.queue.add("enter networks of services", o.enterNeeded)
	if first {
		o.queue.add("remove networks that are not needed", o.sweepNetworks) // it was not known before
	}
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
		switch {
		case errors.Is(err, vnic.ErrUnknownNetwork):
		case errors.Is(err, errNoUnderlay):
			o.log.Info("services don't lead from here to pods elsewhere", "network", name, "error", err)
		default:
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
		cfg.Overlay, cfg.Underlay = c.Overlay, c.Self.Underlay
	}
	o.uses.mu.Lock() // what is called back takes it before it uses the fabric
	defer o.uses.mu.Unlock()
	o.fabric = fabric.Start(cfg)
}
