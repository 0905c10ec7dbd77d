package rig

import (
	"context"
	"net/netip"

	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/bench/internal/result"
)

// Networks of brfuse. Each hypervisor has a brfused with a store of its own, so in
// a pair their pods are told which addresses to have.
var (
	fusedNet = netip.MustParsePrefix("10.241.0.0/24")
	overNet  = netip.MustParsePrefix("10.245.0.0/24")
)

// podHost is the last octet of the address of a node's pod, beside 100 for each node.
const podHost = 10

// networks are the networks that the node's daemon has, by topology: on a bridge
// that brfuse makes, or in a pair on those that are joined.
func (n *node) networks() map[string]fused.Network {
	if !n.rig.opts.Pair {
		return map[string]fused.Network{result.Fused: {Name: "fused", Subnets: []netip.Prefix{fusedNet}}}
	}
	return map[string]fused.Network{
		result.Fused:        {Name: "fused", Subnets: []netip.Prefix{fusedNet}, Bridge: fusedBridge},
		result.OverlayFused: {Name: "over", Subnets: []netip.Prefix{overNet}, Bridge: overBridge, MTU: overMTU},
	}
}

// fusedPods has brfuse give the pods their vNICs.
func fusedPods(ctx context.Context, r *Rig, s *Setup) error {
	if err := r.addPods(ctx, s); err != nil {
		return err
	}
	for _, n := range r.nodes {
		f, net := n.fused[s.Topology], n.networks()[s.Topology].Subnets[0]
		s.did("detach the pod of guest "+n.name, func(ctx context.Context) error {
			_, _, err := f.Detach(ctx, Pod)
			return err
		})
		if _, err := f.Attach(ctx, Pod, n.addr(net, podHost)); err != nil {
			s.undo = s.undo[:len(s.undo)-1] // brfuse has undone it
			return err
		}
		if n == r.nodes[0] {
			s.Addr = n.addr(net, podHost)
		}
	}
	return nil
}
