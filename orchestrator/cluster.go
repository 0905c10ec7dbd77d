package orchestrator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
	"github.com/brfuse/brfuse/vnic"
)

// Cluster says what an Orchestrator is among the others that share its store.
type Cluster struct {
	// Self is this hypervisor. Name is required, and Underlay for overlays.
	Self vnic.Hypervisor
	// Overlay programs where the pods of overlays are. Required.
	Overlay Overlay
	// KeepAlive keeps a key in the store for as long as ctx lasts and the store can
	// be reached, and has it vanish some seconds after that. It calls held each time
	// that the key was put. It returns the error of ctx. Required.
	KeepAlive func(ctx context.Context, key string, value []byte, held func()) error
	// ReleaseAfter is how long another hypervisor may be dead before what it holds is
	// given to others. Default: it never is, but by RemoveHypervisor.
	ReleaseAfter time.Duration
}

func (c *Cluster) check() error {
	if err := vnic.CheckHypervisorName(c.Self.Name); err != nil {
		return err
	}
	if c.Overlay == nil || c.KeepAlive == nil {
		return errors.New("a part of the cluster is missing: Overlay and KeepAlive are both required")
	}
	return nil
}

// own are the prefixes of a hypervisor's own keys. Whatever else is in the store is
// common to all.
func own() []string {
	return append([]string{attachmentPrefix, keyPrefix, vmPrefix, portPrefix, poolPrefix, pooledPrefix, idlePrefix, selfPrefix}, ipam.OwnPrefixes()...)
}

// View returns a shared store as a hypervisor of that name sees it, to copy the
// store of a single one into it.
func View(shared store.Store, hypervisor string) store.Store {
	return scoped.New(shared, fabric.Home(hypervisor), own())
}

// Hypervisor returns this one's name, empty when there is only this one.
func (o *Orchestrator) Hypervisor() string {
	if o.cfg.Cluster == nil {
		return ""
	}
	return o.cfg.Cluster.Self.Name
}

// join writes down that this hypervisor is there. What it held when it was released
// is gone from the store before that.
func (o *Orchestrator) join(ctx context.Context) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	self := o.cfg.Cluster.Self
	known, err := fabric.Hypervisors(ctx, o.shared)
	if err != nil {
		return err
	}
	var old fabric.Known
	for _, k := range known {
		switch {
		case k.Name == self.Name:
			old = k
		case self.Underlay.IsValid() && k.Underlay == self.Underlay && !k.Released:
			return fmt.Errorf("underlay %s is that of hypervisor %s; give each its own, or `brfuse hosts rm %s` if it is gone: %w",
				self.Underlay, k.Name, k.Name, vnic.ErrInUse)
		}
	}
	if old.Alive && old.Underlay != self.Underlay {
		return fmt.Errorf("a hypervisor %s is alive, with underlay %s; give each its own name, or wait until that one is seen dead: %w",
			self.Name, old.Underlay, vnic.ErrInUse)
	}
	if old.Released {
		o.log.Warn("this hypervisor was given up as dead; what it held is released")
		if err := o.release(ctx, self.Name); err != nil {
			return fmt.Errorf("release what it held: %w", err)
		}
	}
	b, err := json.Marshal(fabric.Record{Hypervisor: self})
	if err != nil {
		return err
	}
	_, err = o.shared.Update(ctx, func(tx store.Tx) error { return tx.Put(fabric.HypervisorPrefix+self.Name, b) })
	return wrap(err, "join as hypervisor %s", self.Name)
}

// keepAlive holds the key by which the others see this hypervisor alive. When it gets
// the key back, others may have released this one meanwhile.
func (o *Orchestrator) keepAlive() {
	self := o.cfg.Cluster.Self.Name
	err := o.cfg.Cluster.KeepAlive(o.life, fabric.AlivePrefix+self, []byte(self), func() {
		o.queue.add("see whether this hypervisor was released", o.rejoin)
	})
	if o.life.Err() == nil {
		o.log.Error("this hypervisor can't be kept alive in the store; start its daemon anew", "error", err)
	}
}

// rejoin takes this hypervisor back when it was released while its daemon ran: the
// vNICs that it had belong to nobody now.
func (o *Orchestrator) rejoin(ctx context.Context) error {
	released, err := o.released(ctx)
	if err != nil || !released {
		return err
	}
	if err := o.join(ctx); err != nil {
		return err
	}
	o.sweepSoon()
	return o.reconcileAllSoon(ctx)
}

func (o *Orchestrator) released(ctx context.Context) (bool, error) {
	var r fabric.Record
	err := o.shared.View(ctx, func(tx store.ReadTx) (err error) {
		r, _, err = fabric.Find(tx, o.Hypervisor())
		return err
	})
	return r.Released, err
}

// joined returns an error when this hypervisor was released: what it wrote would be
// released as well.
func (o *Orchestrator) joined(tx store.ReadTx) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	r, found, err := fabric.Find(tx, o.Hypervisor())
	switch {
	case err != nil:
		return err
	case !found || r.Released:
		return fmt.Errorf("hypervisor %s was given up as dead and is coming back; try again: %w", o.Hypervisor(), vnic.ErrHypervisorUnavailable)
	}
	return nil
}

// Hypervisors returns all that share the store, in the order of their names; none
// when there is only this one.
func (o *Orchestrator) Hypervisors(ctx context.Context) ([]vnic.HypervisorStatus, error) {
	if o.cfg.Cluster == nil {
		return nil, nil
	}
	known, err := fabric.Hypervisors(ctx, o.shared)
	if err != nil {
		return nil, fmt.Errorf("list hypervisors: %w", err)
	}
	list := make([]vnic.HypervisorStatus, len(known))
	for i, k := range known {
		list[i] = vnic.HypervisorStatus{Hypervisor: k.Hypervisor, State: k.State()}
		err := o.shared.View(ctx, func(tx store.ReadTx) error {
			items, err := tx.Scan(fabric.Home(k.Name)+keyPrefix, 0)
			list[i].Attachments = len(items)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list hypervisors: %w", err)
		}
	}
	return list, nil
}

// HypervisorOf returns the hypervisor of a VM, or [vnic.ErrUnknownVM].
func (o *Orchestrator) HypervisorOf(ctx context.Context, vm string) (vnic.Hypervisor, error) {
	if o.cfg.Cluster != nil && o.mine.has(vm) {
		return o.cfg.Cluster.Self, nil // also while the store does not answer
	}
	h, err := o.locate(ctx, fabric.VMPrefix+vm)
	if err == nil && h.Name == "" {
		err = fmt.Errorf("it is not registered; see `brfuse vm list`: %w", vnic.ErrUnknownVM)
	}
	return h, wrap(err, "find the hypervisor of vm %s", vm)
}

// HypervisorOfAttachment returns the hypervisor of an attachment, or
// [vnic.ErrNotFound].
func (o *Orchestrator) HypervisorOfAttachment(ctx context.Context, id vnic.ID) (vnic.Hypervisor, error) {
	h, err := o.locate(ctx, fabric.IDPrefix+string(id))
	if err == nil && h.Name == "" {
		err = fmt.Errorf("see `brfuse list --all`: %w", vnic.ErrNotFound)
	}
	return h, wrap(err, "find the hypervisor of attachment %s", id)
}

// vmNames are names of VMs.
type vmNames struct{ m sync.Map }

func (n *vmNames) has(vm string) bool { _, ok := n.m.Load(vm); return ok }

// locate returns the hypervisor that a key names, none when there is no such key.
func (o *Orchestrator) locate(ctx context.Context, key string) (h vnic.Hypervisor, err error) {
	err = o.shared.View(ctx, func(tx store.ReadTx) error {
		h = vnic.Hypervisor{}
		it, err := tx.Get(key)
		if err != nil || !it.Exists() {
			return err
		}
		r, found, err := fabric.Find(tx, string(it.Value))
		if err == nil && !found {
			err = fmt.Errorf("hypervisor %s is not there: %w", it.Value, vnic.ErrHypervisorUnavailable)
		}
		h = r.Hypervisor
		return err
	})
	return h, err
}

// Located is an attachment with the hypervisor that it is on.
type Located struct {
	vnic.Attachment
	Hypervisor string
	// Dead says that this hypervisor doesn't answer to the store.
	Dead bool
}

// ListAll is List for all hypervisors, in the order of their names.
func (o *Orchestrator) ListAll(ctx context.Context, f Filter) ([]Located, error) {
	if o.cfg.Cluster == nil {
		list, err := o.List(ctx, f)
		located := make([]Located, len(list))
		for i, a := range list {
			located[i] = Located{Attachment: a}
		}
		return located, err
	}
	known, err := fabric.Hypervisors(ctx, o.shared)
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var located []Located
	for _, k := range known {
		other := &Orchestrator{cfg: Config{Store: View(o.shared, k.Name)}}
		list, err := other.List(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("hypervisor %s: %w", k.Name, err)
		}
		for _, a := range list {
			located = append(located, Located{Attachment: a, Hypervisor: k.Name, Dead: !k.Alive})
		}
	}
	return located, nil
}

// RemoveHypervisor releases all that a dead hypervisor holds, and forgets it. Of one
// that is alive it is a [vnic.ErrInUse].
func (o *Orchestrator) RemoveHypervisor(ctx context.Context, name string) error {
	if o.cfg.Cluster == nil {
		return fmt.Errorf("remove hypervisor %s: there is only this one: %w", name, vnic.ErrInvalid)
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("remove hypervisor %s: %w", name, err)
	}
	defer done()
	err = o.giveUpHypervisor(ctx, name)
	if err == nil {
		err = o.forgetHypervisor(ctx, name)
	}
	return wrap(err, "remove hypervisor %s", name)
}

// giveUpHypervisor writes down that a hypervisor is released, unless it is alive, and releases
// what it holds.
func (o *Orchestrator) giveUpHypervisor(ctx context.Context, name string) error {
	_, err := o.shared.Update(ctx, func(tx store.Tx) error {
		r, found, err := fabric.Find(tx, name)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("there is none of that name; see `brfuse hosts`: %w", vnic.ErrInvalid)
		}
		it, err := tx.Get(fabric.AlivePrefix + name)
		if err != nil {
			return err
		}
		if it.Exists() {
			return fmt.Errorf("it is alive; stop its daemon first, and wait until `brfuse hosts` shows it dead: %w", vnic.ErrInUse)
		}
		r.Released = true
		return save(tx, fabric.HypervisorPrefix+name, r)
	})
	if err != nil {
		return err
	}
	if err := failpoint.Hit("cluster.released"); err != nil {
		return err
	}
	return o.release(ctx, name)
}

// forgetHypervisor deletes the record of a hypervisor that is released, with its VMs.
func (o *Orchestrator) forgetHypervisor(ctx context.Context, name string) error {
	home, db := fabric.Home(name), releasedStore{o.shared, name}
	err := eraseAll(ctx, db, home+vmPrefix, func(tx store.Tx, it store.Item) error {
		return cmp.Or(tx.Delete(it.Key), tx.Delete(fabric.VMPrefix+strings.TrimPrefix(it.Key, home+vmPrefix)))
	})
	if err == nil {
		err = eraseAll(ctx, db, home, eraseKey)
	}
	if err != nil {
		return err
	}
	_, err = db.Update(ctx, func(tx store.Tx) error { return tx.Delete(fabric.HypervisorPrefix + name) })
	return err
}

// blockPause is between two looks at which blocks of addresses this hypervisor can do
// without.
const blockPause = time.Minute

// giveBack gives blocks of addresses back that nothing is leased from.
func (o *Orchestrator) giveBack() {
	ticker := time.NewTicker(blockPause)
	defer ticker.Stop()
	for {
		select {
		case <-o.life.Done():
			return
		case <-ticker.C:
		}
		nets, err := o.Networks(o.life)
		for _, n := range nets {
			_, gerr := o.pool.GiveBack(o.life, o.cfg.Store, n)
			err = errors.Join(err, gerr)
		}
		if err != nil && o.life.Err() == nil {
			o.log.Warn("blocks of addresses are not given back, it will be tried again", "error", err)
		}
	}
}
