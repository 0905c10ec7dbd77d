package agentd

import (
	"context"
	"fmt"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// Path implements the call of that name.
func (s *service) Path(ctx context.Context, req *agentv1.PathRequest) (*agentv1.PathResponse, error) {
	o, err := toWalk(req)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	p, err := netpath.Local(ctx, o)
	if err != nil {
		return nil, rpcerr.Encode(err) // the answer to a question, and no failure
	}
	b, err := netpath.Encode(p)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.PathResponse{Path: b}, nil
}

// toWalk checks what is asked for. Without a namespace it is the first one.
func toWalk(req *agentv1.PathRequest) (o netpath.Options, err error) {
	o.Namespace, o.Interface = req.GetNetns(), req.GetInterface()
	if o.Namespace != "" {
		if err := checkNetns(o.Namespace); err != nil {
			return o, err
		}
	}
	if err := vnic.CheckInterface(o.Interface); err != nil {
		return o, err
	}
	if to := req.GetTo(); to != "" {
		if o.To, err = netip.ParseAddr(to); err != nil || o.To.Zone() != "" {
			return o, fmt.Errorf("destination %q: give a plain IPv4 or IPv6 address: %w", cut(to), vnic.ErrInvalid)
		}
	}
	return o, nil
}
