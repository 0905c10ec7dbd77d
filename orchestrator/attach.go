package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Attach gives a pod a vNIC, and returns when the pod has it with its
// addresses, or when all is undone. Attaching the same again returns the
// attachment that there is, also when another call makes it at that moment. The
// halves are asked whether its vNIC is still in the pod: if not, since the VM or
// the pod was restarted just now, it is undone and made anew. A request that
// differs is a [vnic.ErrConflict]. The error says in which phase
// and step it failed, and wraps one of package vnic when there is a fit one.
//
// When ctx ends, the attach fails and is undone; the undoing has deadlines of
// its own.
func (o *Orchestrator) Attach(ctx context.Context, req vnic.Request) (a vnic.Attachment, err error) {
	ctx, end := o.observe(ctx, OpAttach)
	defer func() { end(asked(a, req), err) }()
	if req, err = req.Complete(); err == nil {
		err = o.keepTunnels(req.Ports...)
	}
	if err != nil {
		return vnic.Attachment{}, fmt.Errorf("attach %s: %w", describe(req.Key), err)
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return vnic.Attachment{}, fmt.Errorf("attach %s: %w", describe(req.Key), err)
	}
	defer done()
	if a, err = o.attach(ctx, req); err != nil {
		return vnic.Attachment{}, fmt.Errorf("attach %s: %w", describe(req.Key), err)
	}
	return a, nil
}

// describe returns "POD/INTERFACE in VM".
func describe(k vnic.Key) string { return k.Pod + "/" + k.Interface + " in " + k.VM }

// attach waits until no operation runs on the key and no attachment of it is
// being undone.
func (o *Orchestrator) attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error) {
	for {
		a, leftover, err := o.attachOnce(ctx, req)
		if leftover == nil {
			return a, err
		}
		if werr := o.waitGone(ctx, leftover.ID); werr != nil {
			return a, fmt.Errorf("phase requested: wait until attachment %s of this pod is detached: %w; the last try: %w",
				leftover.ID, werr, err)
		}
	}
}

// attachOnce attaches under the lock of the key. It returns an attachment that
// is in the way and could not be undone.
func (o *Orchestrator) attachOnce(ctx context.Context, req vnic.Request) (a vnic.Attachment, leftover *record, err error) {
	unlock, err := o.locks.Lock(ctx, req.Key)
	if err != nil {
		return a, nil, fmt.Errorf("phase requested: wait for another operation on this interface: %w", err)
	}
	defer unlock()
	if o.seen.usable(req.VM) == nil {
		// That there is none yet is the rule, and leasing finds out on its way.
		if a, err = o.attachNew(ctx, req); !errors.Is(err, errMade) {
			return a, nil, err
		}
	}
	r, err := o.readKey(ctx, req.Key)
	switch {
	case err != nil:
		return a, nil, fmt.Errorf("phase requested: %w", err)
	case r != nil && r.Phase == vnic.PhaseReady:
		if err := compare(r.Attachment, req); err != nil {
			return r.Attachment, nil, err
		}
		switch err := o.check(ctx, r); {
		case r.Phase == vnic.PhaseReady:
			return r.Attachment, nil, wrap(err, "phase ready: see if the vnic is still there")
		case err != nil:
			return a, r, err
		}
	case r != nil:
		if err := o.undo(context.WithoutCancel(ctx), r); err != nil {
			return a, r, err
		}
	}
	a, err = o.attachNew(ctx, req)
	return a, nil, err
}

// attachNew attaches where there is nothing.
func (o *Orchestrator) attachNew(ctx context.Context, req vnic.Request) (vnic.Attachment, error) {
	start := time.Now()
	if err := failpoint.Hit("attach.requested"); err != nil {
		return vnic.Attachment{}, fmt.Errorf("phase requested: %w", err)
	}
	sctx, end := beginStep(ctx, "lease")
	r, err := o.lease(sctx, req)
	if errors.Is(err, errMade) {
		end(nil, nil)
	} else {
		end(nil, err)
	}
	if err != nil {
		return vnic.Attachment{}, fmt.Errorf("phase requested: lease: %w", err)
	}
	defer o.rooms.get(req.VM).attach()() // not before it is known that there is such a vm
	o.noteLuck(r)
	r.Timings = append(r.Timings, vnic.Timing{Step: "lease", Duration: time.Since(start)})
	log := o.logFor(r)
	log.Debug("leased", "mac", r.MAC, "addresses", r.Leases)
	if err := o.carryOut(ctx, r, start); err != nil {
		err = fmt.Errorf("phase %s: %w", r.Phase, err)
		log.Warn("attach failed", "error", err)
		r.LastError = err.Error()
		r.spoiled = r.spoiled || isSpoilt(err) && ctx.Err() == nil
		if uerr := o.undo(context.WithoutCancel(ctx), r); uerr != nil {
			err = fmt.Errorf("%w; undoing it goes on in the background, for it failed too: %w", err, uerr)
		}
		return vnic.Attachment{}, err
	}
	log.Info("attached", "took", time.Since(start), "steps", r.Timings)
	return r.Attachment, nil
}

// errMade tells that there is an attachment of a request's key.
var errMade = fmt.Errorf("%w: an attachment was made meanwhile; try again", vnic.ErrConflict)

// lease writes a new attachment, with all that it holds, in one transaction. When there
// is one, the error is errMade.
func (o *Orchestrator) lease(ctx context.Context, req vnic.Request) (*record, error) {
	if err := o.seen.usable(req.VM); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	var r *record
	rev, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if unused, err := store.Unused(tx, keyPrefix+req.String()); err != nil || !unused {
			return cmp.Or(err, errMade)
		}
		n, err := o.usable(tx, req)
		if err != nil {
			return err
		}
		r = newRecord(req, n)
		if err := o.take(tx, r, n); err != nil {
			return err
		}
		return cmp.Or(takePorts(tx, r.ID, req.Ports), save(tx, attachmentKey(r.ID), r), tx.Put(keyPrefix+req.String(), []byte(r.ID)), o.enlist(tx, r))
	})
	if err != nil {
		return nil, err
	}
	r.rev = rev
	return r, nil
}

// usable returns the request's network, once it and the VM are there to be used.
func (o *Orchestrator) usable(tx store.ReadTx, req vnic.Request) (vnic.Network, error) {
	n, err := o.open(tx, req.VM, req.Network)
	switch {
	case err != nil:
		return n, err
	case req.MTU > n.MTU:
		return n, fmt.Errorf("mtu %d is larger than %d of network %s: %w", req.MTU, n.MTU, n.Name, vnic.ErrInvalid)
	case req.Manager != "":
		return n, cmp.Or(o.quota(tx, req.VM), portQuota(tx, req, req.Ports))
	}
	return n, nil
}

// open returns a network that takes new attachments of a VM which does so, too, on a
// hypervisor that isn't released.
func (o *Orchestrator) open(tx store.ReadTx, vm, network string) (vnic.Network, error) {
	var v vmRecord
	var n networkRecord
	rev, err := load(tx, vmPrefix+vm, &v)
	switch {
	case err != nil:
		return vnic.Network{}, err
	case rev == 0 || v.Removing:
		return vnic.Network{}, fmt.Errorf("vm %s is not registered; see `brfuse vm add`: %w", vm, vnic.ErrUnknownVM)
	}
	rev, err = load(tx, networkPrefix+network, &n)
	switch {
	case err != nil:
		return vnic.Network{}, err
	case rev == 0 || n.Removing:
		return vnic.Network{}, fmt.Errorf("network %s does not exist; see `brfuse network create`: %w", network, vnic.ErrUnknownNetwork)
	}
	return n.Network, o.joined(tx)
}

func newRecord(req vnic.Request, n vnic.Network) *record {
	now := time.Now()
	r := &record{untouched: true, Attachment: vnic.Attachment{
		Request: req, Phase: vnic.PhaseLeased, MTU: n.MTU, Created: now, Updated: now,
	}}
	if req.MTU != 0 {
		r.MTU = req.MTU
	}
	return r
}

// take gives r an id, a vNIC that is parked or a MAC for a new one, and addresses
// that no other attachment has.
func (o *Orchestrator) take(tx store.Tx, r *record, n vnic.Network) error {
	for used := true; used; {
		var err error
		r.ID = vnic.NewID()
		if used, err = o.usedID(tx, r.ID); err != nil {
			return err
		}
	}
	err := o.takeParked(tx, r)
	if err == nil && r.Device == "" {
		r.MAC, err = o.pool.TakeMAC(tx, r.owner(), r.Request.MAC)
	}
	if err != nil {
		return err
	}
	if r.Request.Manager == dockerManager {
		// Docker asks for an address before it asks for the endpoint that gets it.
		if err := o.pool.TakeOver(tx, r.Request.VM, n.Name, r.Request.Addresses); err != nil {
			return err
		}
	}
	var leases []ipam.Lease
	if leases, err = o.pool.Take(tx, families(n, r.Request), r.owner(), r.Request.Addresses); err != nil {
		return err
	}
	for _, l := range leases {
		r.Leases = append(r.Leases, l.Prefix)
		r.Gateways = append(r.Gateways, l.Gateway)
	}
	return nil
}

// families returns the network with the subnets only that a request wants
// addresses of.
func families(n vnic.Network, req vnic.Request) vnic.Network {
	if !req.Exact {
		return n
	}
	all := n
	n.Subnets, n.Gateways = nil, nil
	for i, s := range all.Subnets {
		if slices.ContainsFunc(req.Addresses, func(a netip.Addr) bool { return a.Is4() == s.Addr().Is4() }) {
			n.Subnets, n.Gateways = append(n.Subnets, s), append(n.Gateways, all.Gateways[i])
		}
	}
	return n
}
