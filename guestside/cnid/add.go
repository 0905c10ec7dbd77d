package cnid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// add gives a pod its vNIC. When the plugin is gone before it got the answer,
// nobody would ever take the vNIC away for sure, so the server does.
func (s *Server) add(ctx context.Context, peer int, req cniapi.Request) outcome {
	unlock, err := s.locks.Lock(ctx, req.Key())
	if err != nil {
		return failed(errorOf(req, context.Cause(ctx)))
	}
	r, err := s.prepare(ctx, peer, req)
	if err != nil {
		unlock()
		return failed(errorOf(req, err))
	}
	a, err := s.cfg.Host.Attach(ctx, r)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		out := failed(errorOf(req, err))
		abandoned := ctx.Err() != nil // what the host did of it is not known
		out.settle = func(ctx context.Context, _ bool) { s.settle(ctx, req, !abandoned, unlock) }
		return out
	}
	return outcome{
		response: cniapi.Response{Attachment: &a},
		settle:   func(ctx context.Context, delivered bool) { s.settle(ctx, req, delivered, unlock) },
	}
}

// prepare completes a request by what can be seen in the pod, and checks that the
// pod can take the vNIC.
func (s *Server) prepare(ctx context.Context, peer int, req cniapi.Request) (r vnic.Request, err error) {
	r = req.Attach
	r.VM, r.Manager, r.Handover = "", cniapi.Manager, false
	if r.Netns, err = s.netnsFor(peer, r.Netns); err != nil {
		return r, err
	}
	err = s.cfg.Agent.NameFree(ctx, r.Netns, r.Interface)
	if errors.Is(err, vnic.ErrInvalid) { // it is the VM's own namespace
		err = fmt.Errorf("%w: %w", err, vnic.ErrUnknownPod)
	}
	if err != nil || !req.AutoDefaultRoute {
		return r, err
	}
	has, err := hasDefaultRoute(r.Netns)
	if has {
		r.NoDefaultRoute = true
		r.Routes = slices.DeleteFunc(r.Routes, func(r vnic.Route) bool { return r.Destination.Bits() == 0 })
	}
	return r, err
}

// settle ends an ADD: a vNIC that nobody knows of is taken back first. Until
// then no other call for that attachment begins.
func (s *Server) settle(ctx context.Context, req cniapi.Request, keep bool, unlock func()) {
	if keep {
		unlock()
		return
	}
	s.calls.Go(func() {
		defer unlock()
		log := s.log.With(slog.String("container", req.Attach.Pod), slog.String("interface", req.Attach.Interface))
		ctx, cancel := context.WithTimeoutCause(ctx, undoLimit, errors.New("not taken back in time"))
		defer cancel()
		if err := s.cfg.Host.Detach(ctx, req.Attach.Pod, req.Attach.Interface); err != nil {
			// The runtime calls DEL for what failed; GC finds the rest.
			log.Warn("take back the vnic of an abandoned ADD", slog.Any("error", err))
			return
		}
		log.Info("took back the vnic of an abandoned ADD")
	})
}
