package daemon

import (
	"context"
	"net/netip"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
)

// The methods below implement netbench.Guests by the links to the agents.

// BenchOpen implements netbench.Guests.
func (p *parts) BenchOpen(ctx context.Context, vm string, o guestlink.BenchOrder) (guestlink.BenchPlace, error) {
	return p.links.BenchOpen(ctx, vm, o)
}

// BenchServe implements netbench.Guests.
func (p *parts) BenchServe(ctx context.Context, vm, id string) (uint16, error) {
	return p.links.BenchServe(ctx, vm, id)
}

// BenchReach implements netbench.Guests.
func (p *parts) BenchReach(ctx context.Context, vm, id string, to []netip.Addr, port uint16) ([]netip.Addr, error) {
	return p.links.BenchReach(ctx, vm, id, to, port)
}

// BenchRun implements netbench.Guests.
func (p *parts) BenchRun(ctx context.Context, vm, id string, to netip.AddrPort, spec netload.Spec) (guestlink.BenchResult, error) {
	return p.links.BenchRun(ctx, vm, id, to, spec)
}

// BenchClose implements netbench.Guests.
func (p *parts) BenchClose(ctx context.Context, vm, id string) error {
	return p.links.BenchClose(ctx, vm, id)
}
