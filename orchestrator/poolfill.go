package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// tendSoon has a pool looked after in the background, until that works.
func (o *Orchestrator) tendSoon(k poolID) {
	o.queue.add("tend pool "+k.String(), func(ctx context.Context) error { return o.tend(ctx, k) })
}

// tendLater is tendSoon for attaches: it ends no pause after an error.
func (o *Orchestrator) tendLater(k poolID) {
	o.queue.again("tend pool "+k.String(), func(ctx context.Context) error { return o.tend(ctx, k) })
}

// tendVM has all pools of a VM looked after, also those whose removal was cut short:
// they have nothing but what is idle.
func (o *Orchestrator) tendVM(ctx context.Context, vm string, idle []pooled) error {
	list, err := o.poolsOf(ctx, vm+"/")
	of := map[poolID]bool{}
	for _, r := range list {
		of[r.id()] = true
	}
	for _, p := range idle {
		of[p.pool()] = true
	}
	for k := range of {
		o.tendSoon(k)
	}
	return err
}

// poolPlan is what a pool has too many of and how many it lacks.
type poolPlan struct {
	surplus []pooled
	missing int
	// idleAt is when it is to shrink, zero when it is not.
	idleAt time.Time
}

// tend unplugs what a pool has too many of, and plugs what it lacks.
func (o *Orchestrator) tend(ctx context.Context, k poolID) error {
	for {
		plan, err := o.plan(ctx, k)
		if err != nil {
			return err
		}
		if !plan.idleAt.IsZero() {
			o.pools.wakeAt(k, plan.idleAt, func() { o.tendSoon(k) })
		}
		err = forEach(plan.surplus, func(p pooled) error { return o.drainParked(ctx, p) })
		if err != nil {
			return err
		}
		if plan.missing == 0 && len(plan.surplus) == 0 {
			o.pools.filled(k, nil)
			return nil
		}
		if plan.missing == 0 {
			continue
		}
		if err := o.seen.usableAgent(k.vm); err != nil {
			o.pools.filled(k, err)
			return nil // an event will tell that it is there
		}
		if err := o.fill(ctx, k, plan.missing); err != nil {
			o.pools.filled(k, err)
			return err
		}
	}
}

func (o *Orchestrator) plan(ctx context.Context, k poolID) (poolPlan, error) {
	var plan poolPlan
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		r, found, err := readPool(tx, k)
		if err != nil {
			return err
		}
		list, err := idle(tx, k.idle(parked), 0)
		if err != nil {
			return err
		}
		var good []pooled
		for _, p := range list {
			if found && p.fits(r) {
				good = append(good, p)
			} else {
				plan.surplus = append(plan.surplus, p)
			}
		}
		limit := r.High
		if found && len(good) > r.Low {
			if at := o.pools.idleAt(k, r.Idle); time.Until(at) <= 0 {
				limit = r.Low
			} else {
				plan.idleAt = at
			}
		}
		if found && len(good) > limit {
			plan.surplus = append(plan.surplus, good[limit:]...)
		}
		being, err := tx.Scan(k.idle(filling), 0)
		plan.missing = max(0, r.Low-len(good)-len(being))
		return err
	})
	return plan, err
}

// fill plugs n vNICs and parks them, some at a time. It begins no more once one
// of them has failed.
func (o *Orchestrator) fill(ctx context.Context, k poolID, n int) error {
	begin, stop := context.WithCancel(ctx) // those that have begun go on
	defer stop()
	room := o.rooms.get(k.vm)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		if room.awaitQuiet(begin) != nil {
			break
		}
		leave, err := room.enter(begin)
		if err != nil {
			break
		}
		wg.Go(func() {
			defer leave()
			if errs[i] = o.fillOne(ctx, k); errs[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	// One is enough to tell: the others are of the same kind, or follow from it.
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil && !errors.Is(err, context.Canceled) })
	if i >= 0 {
		return errs[i]
	}
	return errors.Join(errs...)
}

// fillOne plugs a vNIC and parks it, unless the pool has enough. What fails is
// unplugged.
func (o *Orchestrator) fillOne(ctx context.Context, k poolID) error {
	p, unlock, err := o.newPooled(ctx, k)
	if err != nil || p == nil {
		return err
	}
	defer unlock()
	err = o.fillSteps(ctx, p)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err // the orchestrator closes: it is undone after the restart
	}
	o.log.Warn("pool is not filled", "pool", k.String(), "vnic", string(p.ID), "error", err)
	if derr := o.drainLocked(context.WithoutCancel(ctx), p); derr != nil {
		err = fmt.Errorf("%w; undo: %w", err, derr)
	}
	return err
}

// newPooled writes down a vNIC that is about to be plugged, and locks it. It is
// nil when the pool has enough.
func (o *Orchestrator) newPooled(ctx context.Context, k poolID) (*pooled, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	for {
		id := vnic.NewID()
		unlock, err := o.vnics.Lock(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		var p *pooled
		rev, err := o.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
			p, err = o.addPooled(tx, k, id)
			return err
		})
		if err == nil && p != nil {
			p.rev = rev
			return p, unlock, nil
		}
		unlock()
		if !errors.Is(err, errIDInUse) {
			return nil, nil, err
		}
	}
}

// errIDInUse is returned by addPooled when it is to be tried with another id.
var errIDInUse = errors.New("id in use")

func (o *Orchestrator) addPooled(tx store.Tx, k poolID, id vnic.ID) (*pooled, error) {
	r, found, err := readPool(tx, k)
	if err != nil || !found {
		return nil, err
	}
	if n, err := k.stock(tx, r.Low); err != nil || n >= r.Low {
		return nil, err
	}
	if _, err := o.open(tx, k.vm, k.network); err != nil {
		return nil, err
	}
	if used, err := o.usedID(tx, id); err != nil || used {
		return nil, cmp.Or(err, errIDInUse)
	}
	p := &pooled{ID: id, VM: k.vm, Network: k.network, MTU: r.MTU, Queues: r.Queues}
	if p.MAC, err = o.pool.TakeMAC(tx, p.owner(), vnic.MAC{}); err != nil {
		return nil, err
	}
	return p, p.put(tx, filling)
}

func (o *Orchestrator) fillSteps(ctx context.Context, p *pooled) error {
	d := o.cfg.Deadlines
	if err := failpoint.Hit("fill.recorded"); err != nil {
		return err
	}
	err := within(ctx, "plug", d.Plug, func(ctx context.Context) error {
		port, err := o.cfg.Host.Plug(ctx, vnic.Plug{
			VM: p.VM, ID: p.ID, Network: p.Network, MAC: p.MAC, MTU: p.MTU, Queues: p.Queues, Parked: true,
		})
		p.Slot = port.Slot
		return err
	})
	if err := reached(err, "fill.plugged"); err != nil {
		return err
	}
	if err := reached(o.scrub(ctx, p, d.Move), "fill.retrieved"); err != nil {
		return err
	}
	if err := o.park(ctx, p); err != nil {
		return err
	}
	if p.Session != o.seen.session(p.VM) { // no event tells to look at it again
		o.reconcileSoon(p.VM)
	}
	return failpoint.Hit("fill.parked")
}

// scrub has the guest make a vNIC like new.
func (o *Orchestrator) scrub(ctx context.Context, p *pooled, limit time.Duration) error {
	session := o.seen.session(p.VM)
	return within(ctx, "retrieve", limit, func(ctx context.Context) error {
		nic, err := o.cfg.Guest.Retrieve(ctx, p.VM, p.move())
		p.GuestPCI = cmp.Or(nic.PCI, p.GuestPCI)
		if err == nil {
			p.Session = session
		}
		return err
	})
}

// park makes a vNIC that is plugged and like new ready to be taken.
func (o *Orchestrator) park(ctx context.Context, p *pooled) error {
	return o.shift(ctx, p, parked, func(tx store.Tx) error {
		_, found, err := readPool(tx, p.pool())
		if err == nil && !found {
			err = fmt.Errorf("pool %s was removed meanwhile: %w", p.pool(), vnic.ErrUnknownPool)
		}
		return err
	})
}

// within runs fn within limit and names it in its error.
func within(ctx context.Context, name string, limit time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return late(ctx, name, limit, fn(ctx))
}
