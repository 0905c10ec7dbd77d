package cli_test

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// benches are the topologies of the benches that are open, by id.
var benches sync.Map

// With what follows, prober measures: a pod behind NAT has half of what native has,
// and a fused one as much. VM vm3 refuses.

func (prober) BenchOpen(_ context.Context, vm string, o guestlink.BenchOrder) (guestlink.BenchPlace, error) {
	if vm == "vm3" {
		return guestlink.BenchPlace{}, vnic.ErrUnsupported
	}
	benches.Store(o.ID, o.Topology)
	p := guestlink.BenchPlace{Port: 4711, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	if o.Topology != "native" {
		p.Netns = "web"
	}
	return p, nil
}

func (prober) BenchServe(context.Context, string, string) (uint16, error) { return 4711, nil }

func (prober) BenchReach(_ context.Context, _, _ string, to []netip.Addr, _ uint16) ([]netip.Addr, error) {
	return to, nil
}

func (prober) BenchRun(_ context.Context, _, id string, _ netip.AddrPort, spec netload.Spec) (guestlink.BenchResult, error) {
	topology, _ := benches.Load(id)
	n := uint64(1000)
	if topology == "nat" {
		n = 500
	}
	cost := guestlink.BenchCost{Elapsed: time.Second, System: 250 * time.Millisecond}
	r := guestlink.BenchResult{Elapsed: time.Second, Sent: n, Received: n, Bytes: n * uint64(spec.Size), Client: cost, Server: cost}
	if spec.Kind == netload.TCPRR {
		r.Latency = netload.NewHistogram()
		r.Latency.Record(time.Second / time.Duration(n))
	}
	return r, nil
}

func (prober) BenchClose(context.Context, string, string) error { return nil }
