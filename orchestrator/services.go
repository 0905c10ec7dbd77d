package orchestrator

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Reached is a service with the number of ready pods that it leads to.
type Reached struct {
	vnic.Service
	Ready int
}

// SetService publishes a port of pods, and returns the service with its defaults
// filled in. The hypervisors follow within moments. To publish the same again is no
// error. A name that is another service's is a [vnic.ErrConflict], a port that is
// another's a [vnic.ErrPortTaken].
func (o *Orchestrator) SetService(ctx context.Context, s vnic.Service) (Reached, error) {
	s, err := s.Complete()
	if err != nil {
		return Reached{Service: s}, fmt.Errorf("publish: %w", err)
	}
	if err := o.keepTunnels(vnic.PortMapping{Protocol: s.Protocol, HostPort: s.Port}); err != nil {
		return Reached{Service: s}, fmt.Errorf("publish service %s: %w", s.Name, err)
	}
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return Reached{Service: s}, fmt.Errorf("publish service %s: %w", s.Name, err)
	}
	defer done()
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error { return addService(tx, s) })
	return o.reached(s), wrap(err, "publish service %s", s.Name)
}

func addService(tx store.Tx, s vnic.Service) error {
	list, err := all[vnic.Service](tx, fabric.ServicePrefix)
	if err != nil {
		return err
	}
	for _, old := range list {
		switch {
		case old.Name == s.Name && old.Equal(s):
			return nil
		case old.Name == s.Name:
			return fmt.Errorf("it leads from %s to port %d of network %s; remove it first by `brfuse unpublish %s`: %w",
				old.Where(), old.Target, old.Network, s.Name, vnic.ErrConflict)
		case old.Protocol == s.Protocol && old.Port == s.Port:
			return &vnic.TakenError{What: "port " + s.Where(), Why: "is that of service " + old.Name + "; choose another", Err: vnic.ErrPortTaken}
		}
	}
	var n networkRecord
	switch rev, err := load(tx, networkPrefix+s.Network, &n); {
	case err != nil:
		return err
	case rev == 0 || n.Removing:
		return fmt.Errorf("network %s does not exist; see `brfuse network create`: %w", s.Network, vnic.ErrUnknownNetwork)
	case n.Unaddressed || n.Kind == vnic.KindVLAN || n.Kind == vnic.KindMacvtap:
		return fmt.Errorf("pods of network %s are not reached by way of this host: %w", s.Network, vnic.ErrUnsupported)
	}
	return save(tx, fabric.ServicePrefix+s.Name, s)
}

// unserved returns [vnic.ErrInUse] when a service leads into a network.
func unserved(tx store.ReadTx, network string) error {
	list, err := all[vnic.Service](tx, fabric.ServicePrefix)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.Network == network {
			return fmt.Errorf("service %s leads to its pods; remove it first by `brfuse unpublish %s`: %w", s.Name, s.Name, vnic.ErrInUse)
		}
	}
	return nil
}

// Services returns all in the order of their names.
func (o *Orchestrator) Services(ctx context.Context) ([]Reached, error) {
	var list []vnic.Service
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = all[vnic.Service](tx, fabric.ServicePrefix)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	reached := make([]Reached, len(list))
	for i, s := range list {
		reached[i] = o.reached(s)
	}
	return reached, nil
}

func (o *Orchestrator) reached(s vnic.Service) Reached {
	return Reached{Service: s, Ready: o.fabric.Ready(s)}
}

// RemoveService ends a service; that there is none of that name is a
// [vnic.ErrUnknownService].
func (o *Orchestrator) RemoveService(ctx context.Context, name string) error {
	ctx, done, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("unpublish service %s: %w", name, err)
	}
	defer done()
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		it, err := tx.Get(fabric.ServicePrefix + name)
		if err != nil {
			return err
		}
		if !it.Exists() {
			return fmt.Errorf("there is none; see `brfuse services`: %w", vnic.ErrUnknownService)
		}
		return tx.Delete(it.Key)
	})
	return wrap(err, "unpublish service %s", name)
}
