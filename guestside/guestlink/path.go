package guestlink

import (
	"context"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/netpath"
)

// Walk says which path an agent is asked for.
type Walk struct {
	Netns     string // as in vnic.Move
	Interface string
	To        netip.Addr // invalid: where the default route leads to
}

// Path asks what a packet of a pod crosses in the VM: [vnic.ErrUnknownPod],
// [vnic.ErrInvalid] when it has no such interface. What the agent tells is bounded and fit to be shown, and may
// be untrue.
func (l *Links) Path(ctx context.Context, vm string, w Walk) (*netpath.Path, error) {
	req := &agentv1.PathRequest{Netns: w.Netns, Interface: w.Interface}
	if w.To.IsValid() {
		req.To = w.To.String()
	}
	var p *netpath.Path
	err := l.call(ctx, vm, "find path", l.cfg.Timeouts.Move, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.Path(ctx, req)
		if err != nil {
			return err
		}
		if p, err = netpath.Decode(resp.GetPath()); err != nil {
			return malformed(err)
		}
		return nil
	})
	return p, err
}
