package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

const (
	// warmTries is how many parked vNICs an attach tries before it plugs a new one.
	warmTries = 2
	// announceMargin is how long before a move's answer its announcement may have
	// been sent: a port that opened later than that has missed it.
	announceMargin = 5 * time.Millisecond
)

// luck is what an attach had with its pool.
type luck int

const (
	noPool luck = iota // or none that fits
	poolHit
	poolMiss
)

// takeParked gives r a parked vNIC, when there is a pool that fits the request.
func (o *Orchestrator) takeParked(tx store.Tx, r *record) error {
	r.luck = noPool
	pool, found, err := readPool(tx, r.pool())
	if err != nil || !found || !pool.serves(r.Request) || o.seen.usableAgent(r.Request.VM) != nil {
		return err
	}
	r.luck = poolMiss
	// Only an agent that is still there has seen to it that a vNIC is like new.
	session := o.seen.session(r.Request.VM)
	p, err := firstIdle(tx, pool.id().idle(parked), func(p pooled) bool { return p.fits(pool) && p.Session == session })
	if err != nil || p == nil {
		return err
	}
	r.luck, r.untouched = poolHit, false
	r.Phase, r.Device, r.MAC, r.MTU, r.Slot, r.GuestPCI = vnic.PhasePlugged, p.ID, p.MAC, p.MTU, p.Slot, p.GuestPCI
	p.Attachment = r.ID
	return p.put(tx, taken)
}

// serves says whether a request leaves open what the pool's vNICs have settled.
func (p poolRecord) serves(q vnic.Request) bool {
	return q.MAC.IsZero() && q.Queues == p.Queues && (q.MTU == 0 || q.MTU == p.MTU)
}

// noteLuck counts hits and misses, and has the pool filled up.
func (o *Orchestrator) noteLuck(r *record) {
	switch r.luck {
	case noPool:
		return
	case poolHit:
		o.pools.hit(r.pool())
	case poolMiss:
		o.pools.miss(r.pool())
	}
	o.tendLater(r.pool())
}

// provideWarm has the pod get the parked vNIC that r has taken. One that proves
// bad is given up for the next, and then for one that is yet to be plugged: r has
// no Device then, and the rest is the cold attach's.
func (o *Orchestrator) provideWarm(ctx context.Context, r *record) (vnic.NIC, error) {
	for try := 1; ; try++ {
		if err := failpoint.Hit("attach.taken"); err != nil {
			return vnic.NIC{}, err
		}
		nic, err := o.deliver(ctx, r)
		if !isSpoilt(err) || ctx.Err() != nil {
			return nic, o.nameCause("move", r.Request.VM, err)
		}
		o.logFor(r).Warn("vnic of a pool is of no use, giving it up", "error", err)
		if serr := o.giveUp(ctx, r, err, try < warmTries); serr != nil {
			r.spoiled = true
			return nic, fmt.Errorf("%w; take another: %w", err, serr)
		}
		if r.Device == "" {
			return nic, nil
		}
	}
}

// giveUp gives up a vNIC that failed with err. One that is in the pod, which has no
// tap then, is taken out, for another is to have its name.
func (o *Orchestrator) giveUp(ctx context.Context, r *record, err error, another bool) error {
	if !errors.Is(err, vnic.ErrNICMissing) && !errors.Is(err, vnic.ErrDiffers) {
		if err := o.retrieveStep(ctx, r); err != nil {
			return err
		}
	}
	return o.swap(ctx, r, another)
}

// isSpoilt tells of an error that a vNIC, and not the request, is at fault for.
func isSpoilt(err error) bool {
	return errors.Is(err, vnic.ErrNICMissing) || errors.Is(err, vnic.ErrDiffers) || errors.Is(err, vnic.ErrNotFound)
}

// deliver has the host half make the tap a port while the guest half moves the
// vNIC. What the guest announced before the port was open is announced again.
func (o *Orchestrator) deliver(ctx context.Context, r *record) (vnic.NIC, error) {
	side := *r
	side.Timings = nil
	var uerr error
	var opened time.Time
	done := make(chan struct{})
	go func() {
		defer close(done)
		uerr = o.unparkStep(ctx, &side)
		opened = time.Now()
	}()
	nic, err := o.moveStep(ctx, r)
	moved := time.Now()
	if err == nil {
		err = failpoint.Hit("attach.moved")
	}
	<-done
	r.Timings = append(r.Timings, side.Timings...)
	switch {
	case err != nil && uerr != nil:
		err = fmt.Errorf("%w; %w", err, uerr)
	case err == nil:
		err = uerr
	}
	if opened.Add(announceMargin).After(moved) {
		nic.Up = false // to be configured, which announces it
	}
	return nic, err
}

func (o *Orchestrator) unparkStep(ctx context.Context, r *record) error {
	err := step(ctx, r, "unpark", o.cfg.Deadlines.Plug, func(ctx context.Context) error {
		return o.cfg.Host.Unpark(ctx, plug(r.Attachment))
	})
	return reached(err, "attach.unparked")
}

// swap gives up r's vNIC, which is unplugged in the background, for another
// parked one if there is one and it is wanted, or for none.
func (o *Orchestrator) swap(ctx context.Context, r *record, another bool) error {
	next := *r
	bad := r.Device
	err := o.replace(ctx, r, &next, func(tx store.Tx) error {
		next = *r
		p, err := loadPooled(tx, bad)
		if err != nil {
			return err
		}
		if err := p.put(tx, draining); err != nil {
			return err
		}
		next.Device = ""
		if another {
			if err := o.takeParked(tx, &next); err != nil {
				return err
			}
		}
		if next.Device == "" {
			next.Phase, next.untouched, next.Slot, next.GuestPCI = vnic.PhaseLeased, true, "", ""
			if next.MAC, err = o.pool.TakeMAC(tx, next.owner(), vnic.MAC{}); err != nil {
				return err
			}
		}
		return o.announce(tx, &next)
	})
	if err != nil {
		return err
	}
	o.drainSoon(bad)
	o.reconcileSoon(r.Request.VM) // there may be more, of which no event told
	return nil
}

// evict makes room in a VM without a free slot, by unplugging what its pools have
// parked, and plugs r's vNIC. Nothing is plugged in the background meanwhile.
func (o *Orchestrator) evict(ctx context.Context, r *record, noSlot error) error {
	wait, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Plug)
	defer cancel()
	leave, err := o.rooms.get(r.Request.VM).enterAlone(wait)
	if err != nil {
		return fmt.Errorf("%w; wait for what is plugged for the vm's pools: %w", noSlot, err)
	}
	defer leave()
	list, err := o.idle(ctx, r.Request.VM)
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b pooled) int { return a.worth() - b.worth() })
	err = noSlot
	for _, p := range list {
		o.logFor(r).Info("no slot is free, unplugging a parked vnic", "pool", p.pool().String(), "vnic", string(p.ID))
		if derr := o.drain(context.WithoutCancel(ctx), p.ID); derr != nil {
			return fmt.Errorf("%w; make room: %w", noSlot, derr)
		}
		o.tendLater(p.pool())
		if err = o.plugOnce(ctx, r); !errors.Is(err, vnic.ErrNoSlot) {
			return err
		}
	}
	return err
}

// worth tells which vNIC is given up rather: the lower one.
func (p pooled) worth() int {
	return slices.Index([]pooledState{draining, parked, filling}, p.State)
}
