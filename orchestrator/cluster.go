package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// HypervisorsOfPod returns the names of those that are known to have vNICs of a pod of
// that name, in order, dead ones among them. The store is not asked.
func (o *Orchestrator) HypervisorsOfPod(pod string) []string { return o.fabric.Holders(pod) }

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
		list, err := listOf(ctx, View(o.shared, k.Name), f)
		if err != nil {
			return nil, fmt.Errorf("list attachments of hypervisor %s: %w", k.Name, err)
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
	_, err = db.Update(ctx, func(tx store.Tx) error {
		r, _, err := fabric.Find(tx, name)
		if err != nil {
			return err
		}
		return cmp.Or(giveUnderlay(tx, r.Hypervisor), tx.Delete(fabric.HypervisorPrefix+name))
	})
	return err
}

// blockPause is about the time between two looks at which blocks of addresses this hypervisor can do
// without.
const blockPause = time.Minute

// giveBack gives blocks of addresses back that nothing is leased from.
func (o *Orchestrator) giveBack() {
	for {
		timer := time.NewTimer(blockPause/2 + rand.N(blockPause)) //nolint:gosec // so that not all do it at once
		select {
		case <-o.life.Done():
			timer.Stop()
			return
		case <-timer.C:
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
