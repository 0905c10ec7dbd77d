package cnid

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// check compares what a runtime was told of an attachment with the host's record
// and port, and with what is in the pod.
func (s *Server) check(ctx context.Context, peer int, req cniapi.Request) outcome {
	if err := s.differs(ctx, peer, req); err != nil {
		return failed(errorOf(req, err))
	}
	return outcome{}
}

func (s *Server) differs(ctx context.Context, peer int, req cniapi.Request) error {
	unlock, err := s.locks.Lock(ctx, req.Key())
	if err != nil {
		return fmt.Errorf("await another call for %s %s: %w", req.Attach.Pod, req.Attach.Interface, context.Cause(ctx))
	}
	defer unlock()
	netns, err := s.netnsFor(peer, req.Attach.Netns)
	if err != nil {
		return err
	}
	a, err := s.cfg.Host.Check(ctx, req.Attach.Pod, req.Attach.Interface)
	if err != nil {
		return err
	}
	m, err := expected(a, req.Expect)
	if err != nil {
		return err
	}
	m.Netns, m.Interface = netns, req.Attach.Interface
	return s.cfg.Agent.Check(ctx, m)
}

// expected returns the order that leads to what has to be in the pod: what brfuse
// made, without that which a later plugin of the chain took away again or
// changed, going by the chain's result. The MTU may have been changed without
// the result telling, so it is left open.
func expected(a vnic.Attachment, e cniapi.Expect) (vnic.Move, error) {
	m := vnic.Move{ID: a.VNIC(), MAC: a.MAC, Queues: a.Request.Queues}
	if !e.MAC.IsZero() && e.MAC != a.MAC {
		return m, fmt.Errorf("the result has mac %s, the vnic %s, and the host lets no other pass: %w", e.MAC, a.MAC, vnic.ErrDiffers)
	}
	for _, p := range a.Leases {
		if slices.ContainsFunc(e.Addresses, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
			m.Addresses = append(m.Addresses, p)
		}
	}
	if len(a.Leases) > 0 && len(m.Addresses) == 0 {
		return m, fmt.Errorf("the result has addresses %v, none of the leased ones %v: %w", e.Addresses, a.Leases, vnic.ErrDiffers)
	}
	for _, r := range a.Routes() {
		if slices.ContainsFunc(e.Routes, func(q vnic.Route) bool {
			return q.Destination == r.Destination && (!q.Gateway.IsValid() || q.Gateway == r.Gateway)
		}) {
			m.Routes = append(m.Routes, r)
		}
	}
	return m, nil
}

// status tells why an ADD would fail now, if it would.
func (s *Server) status(ctx context.Context, req cniapi.Request) outcome {
	if err := s.cfg.Host.Ready(ctx, req.Attach.Network); err != nil {
		return failed(errorOf(req, err))
	}
	return outcome{}
}
