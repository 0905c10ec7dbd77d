package guestlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

// AgentInfo tells which agent a VM has and which boot of the guest this is.
type AgentInfo struct {
	Version string
	BootID  string
	Kernel  string
}

// All calls below return vnic.ErrUnknownVM, or vnic.ErrAgentUnavailable when
// there is no session, when it ends meanwhile, or when no answer comes in time.
// Every one may be repeated.

// Info asks which agent and guest this is.
func (l *Links) Info(ctx context.Context, vm string) (AgentInfo, error) {
	var info AgentInfo
	err := l.call(ctx, vm, "info", l.cfg.Timeouts.Info, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Info(ctx, &agentv1.InfoRequest{})
		if err != nil {
			return err
		}
		info, err = toInfo(resp)
		return err
	})
	return info, err
}

// Prepare checks that a pod can take a vNIC: [vnic.ErrUnknownPod],
// [vnic.ErrNameTaken].
func (l *Links) Prepare(ctx context.Context, vm string, m vnic.Move) error {
	return l.call(ctx, vm, "prepare", l.cfg.Timeouts.Prepare, func(ctx context.Context, a agentv1.AgentService) error {
		_, err := a.Prepare(ctx, &agentv1.PrepareRequest{
			Id: string(m.ID), Mac: m.MAC.String(), Netns: m.Netns, Interface: m.Interface, Handover: m.Handover,
		})
		return err
	})
}

// Check compares a vNIC with its order: [vnic.ErrDiffers], [vnic.ErrNICMissing],
// [vnic.ErrUnknownPod].
func (l *Links) Check(ctx context.Context, vm string, m vnic.Move) error {
	return l.call(ctx, vm, "check", l.cfg.Timeouts.NICs, func(ctx context.Context, a agentv1.AgentService) error {
		_, err := a.Check(ctx, fromMove(m))
		return err
	})
}

// Resolve finds a running container of an engine in the VM, "docker",
// "containerd" or "podman", by its ID, the beginning of it, or its name:
// [vnic.ErrUnknownContainer], [vnic.ErrUnknownPod] when it doesn't run.
func (l *Links) Resolve(ctx context.Context, vm, runtime, container string) (vnic.Container, error) {
	var c vnic.Container
	err := l.call(ctx, vm, "find container", l.cfg.Timeouts.NICs, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Resolve(ctx, &agentv1.ResolveRequest{Runtime: runtime, Container: container})
		if err != nil {
			return err
		}
		c, err = toContainer(resp)
		return err
	})
	return c, err
}

// Move awaits the vNIC in the guest and moves it into the pod:
// [vnic.ErrNICMissing], [vnic.ErrUnknownPod], [vnic.ErrNameTaken]. An agent
// configures it in the same visit to the pod, and it is up then. The timings are
// "appear", "move" and "configure".
func (l *Links) Move(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, []vnic.Timing, error) {
	var nic vnic.NIC
	var timings []vnic.Timing
	err := l.call(ctx, vm, "move", l.cfg.Timeouts.Move, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Move(ctx, fromMove(m))
		if err != nil {
			return err
		}
		timings = []vnic.Timing{
			{Step: "appear", Duration: toDuration(resp.GetAppearNanos())},
			{Step: "move", Duration: toDuration(resp.GetMoveNanos())},
			{Step: "configure", Duration: toDuration(resp.GetConfigureNanos())},
		}
		nic, err = toOwnNIC(resp.GetNic(), m.MAC)
		return err
	})
	return nic, timings, err
}

// Configure gives a moved vNIC its addresses and routes, and sets it up. One that
// Move returned up does not need it.
func (l *Links) Configure(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, error) {
	var nic vnic.NIC
	err := l.call(ctx, vm, "configure", l.cfg.Timeouts.Configure, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Configure(ctx, fromMove(m))
		if err != nil {
			return err
		}
		nic, err = toOwnNIC(resp.GetNic(), m.MAC)
		return err
	})
	return nic, err
}

// Retrieve awaits a vNIC, takes it back to the guest's first namespace and makes
// it like new: [vnic.ErrNICMissing], and [vnic.ErrDiffers] when that can't be done.
func (l *Links) Retrieve(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, error) {
	var nic vnic.NIC
	err := l.call(ctx, vm, "retrieve", l.cfg.Timeouts.Move, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Retrieve(ctx, fromMove(m))
		if err != nil {
			return err
		}
		nic, err = toOwnNIC(resp.GetNic(), m.MAC)
		return err
	})
	return nic, err
}

// Release has the agent forget a vNIC that is about to be unplugged. It succeeds
// when there is none.
func (l *Links) Release(ctx context.Context, vm string, m vnic.Move) error {
	return l.call(ctx, vm, "release", l.cfg.Timeouts.Release, func(ctx context.Context, a agentv1.AgentService) error {
		_, err := a.Release(ctx, &agentv1.ReleaseRequest{
			Id: string(m.ID), Mac: m.MAC.String(), Netns: m.Netns, Interface: m.Interface,
		})
		return err
	})
}

// NICs lists the vNICs that the agent knows of or finds.
func (l *Links) NICs(ctx context.Context, vm string) ([]vnic.NIC, error) {
	var nics []vnic.NIC
	err := l.call(ctx, vm, "list vnics", l.cfg.Timeouts.NICs, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.List(ctx, &agentv1.ListRequest{})
		if err != nil {
			return err
		}
		nics, err = toNICs(resp.GetNics())
		return err
	})
	return nics, err
}

// call makes one call in the VM's session. do returns errors of the call and of
// the answer's checks.
func (l *Links) call(ctx context.Context, vm, what string, timeout time.Duration, do func(context.Context, agentv1.AgentService) error) error {
	k, err := l.link(vm)
	if err != nil {
		return err
	}
	s, err := k.await(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = do(limited, agentv1.NewAgentClient(s.Client()))
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("vm %s: %s: %w", vm, what, context.Canceled)
	case !s.Alive():
		return fmt.Errorf("vm %s: %s: %w: the session ended: %w", vm, what, vnic.ErrAgentUnavailable, s.Err())
	case limited.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("vm %s: %s: %w: no answer in time: %w", vm, what, vnic.ErrAgentUnavailable, err)
	}
	return fmt.Errorf("vm %s: %s: %w", vm, what, toError(err))
}
