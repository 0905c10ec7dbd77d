package orchestrator

import (
	"context"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// endpoint is what all hypervisors are told of an attachment.
func (o *Orchestrator) endpoint(r *record) vnic.Endpoint {
	e := vnic.Endpoint{
		ID: r.ID, Network: r.Request.Network, Hypervisor: o.Hypervisor(), Key: r.key(), MAC: r.MAC,
		Labels: r.Request.Labels, Ready: r.Phase == vnic.PhaseReady,
	}
	if c := o.cfg.Cluster; c != nil {
		e.Underlay = c.Self.Underlay
	}
	for _, l := range r.Leases {
		e.Addresses = append(e.Addresses, l.Addr())
	}
	return e
}

// announce writes down what all are to know of an attachment.
func (o *Orchestrator) announce(tx store.Tx, r *record) error {
	return fabric.PutEndpoint(tx, o.endpoint(r))
}

// enlist is announce for a new attachment, and makes its id known to all.
func (o *Orchestrator) enlist(tx store.Tx, r *record) error {
	if err := o.announce(tx, r); err != nil || o.cfg.Cluster == nil {
		return err
	}
	return tx.Put(fabric.IDPrefix+string(r.ID), []byte(o.Hypervisor()))
}

// delist takes back what enlist and announce wrote.
func (o *Orchestrator) delist(tx store.Tx, r *record) error {
	if err := tx.Delete(fabric.EndpointKey(r.Request.Network, r.ID)); err != nil || o.cfg.Cluster == nil {
		return err
	}
	return tx.Delete(fabric.IDPrefix + string(r.ID))
}

// announceAgain puts right what all know of a ready attachment: an earlier release
// told them nothing, and this hypervisor may have another address.
func (o *Orchestrator) announceAgain(ctx context.Context, r *record) error {
	want := o.endpoint(r)
	same := false
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		var e vnic.Endpoint
		rev, err := load(tx, fabric.EndpointKey(want.Network, want.ID), &e)
		same = rev != 0 && e.Equal(want)
		return err
	})
	if err != nil || same {
		return err
	}
	next := *r
	return o.replace(ctx, r, &next, func(tx store.Tx) error { return o.enlist(tx, r) })
}
