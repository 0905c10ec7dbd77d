package agentd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/bench"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// meter is a Bench that remembers what it was told.
type meter struct {
	told []string
	err  error
}

func (m *meter) note(format string, args ...any) error {
	m.told = append(m.told, fmt.Sprintf(format, args...))
	return m.err
}

func (m *meter) Open(ctx context.Context, o bench.Order) (bench.Place, error) {
	_, bounded := ctx.Deadline()
	return bench.Place{Netns: "/proc/7/ns/net", Port: 4711, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		m.note("open %+v bounded=%t", o, bounded)
}

func (m *meter) Serve(_ context.Context, id string) (uint16, error) {
	return 4711, m.note("serve %s", id)
}

func (m *meter) Reach(_ context.Context, id string, to []netip.AddrPort) ([]netip.AddrPort, error) {
	return to[:1], m.note("reach %s %v", id, to)
}

func (m *meter) Run(_ context.Context, id string, to netip.AddrPort, s netload.Spec) (bench.Result, error) {
	return bench.Result{Elapsed: time.Second, Received: 5, Latency: "x", Server: bench.Cost{IRQ: time.Millisecond}}, m.note("run %s %s %+v", id, to, s)
}

func (m *meter) Close(_ context.Context, id string) error { return m.note("close %s", id) }
func (m *meter) CloseAll(context.Context) error           { return m.note("close all") }

func TestBenchCalls(t *testing.T) {
	m := &meter{}
	s := newService(Config{Bench: m, Log: slog.New(slog.DiscardHandler), Reports: new(Reports)})
	ctx := t.Context()
	open, err := s.BenchOpen(ctx, &agentv1.BenchOpenRequest{Id: "a", Topology: "nat", Own: "192.0.2.1"})
	require.NoError(t, err)
	assert.Equal(t, []string{"192.0.2.1"}, open.GetAddresses())
	served, err := s.BenchServe(ctx, &agentv1.BenchServeRequest{Id: "a"})
	require.NoError(t, err)
	assert.Equal(t, uint32(4711), served.GetPort())
	reached, err := s.BenchReach(ctx, &agentv1.BenchReachRequest{Id: "a", Addresses: []string{"192.0.2.1", "192.0.2.2"}, Port: 5})
	require.NoError(t, err)
	assert.Equal(t, []string{"192.0.2.1"}, reached.GetReached())
	r, err := s.BenchRun(ctx, &agentv1.BenchRunRequest{Id: "a", Address: "192.0.2.1", Port: 5, Kind: "tcp_rr", Size: 64, Flows: 1, DurationNanos: 7, WarmUpNanos: 2})
	require.NoError(t, err)
	assert.Equal(t, int64(1e9), r.GetElapsedNanos())
	assert.Equal(t, int64(1e6), r.GetServer().GetIrqNanos())
	_, err = s.BenchClose(ctx, &agentv1.BenchCloseRequest{Id: "a"})
	require.NoError(t, err)
	s.benchEnds(t.Context())
	assert.Equal(t, []string{
		"open {ID:a Topology:nat Own:192.0.2.1 Peer:invalid IP} bounded=true",
		"serve a",
		"reach a [192.0.2.1:5 192.0.2.2:5]",
		"run a 192.0.2.1:5 {Kind:tcp_rr Size:64 Flows:1 Reverse:false Duration:7ns Count:0 WarmUp:2ns Rate:0}",
		"close a",
		"close all",
	}, m.told)

	for _, port := range []uint32{0, 65536} {
		_, err = s.BenchRun(ctx, &agentv1.BenchRunRequest{Address: "192.0.2.1", Port: port})
		require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
	}
	_, err = s.BenchReach(ctx, &agentv1.BenchReachRequest{Addresses: []string{"x"}, Port: 5})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
	_, err = s.BenchOpen(ctx, &agentv1.BenchOpenRequest{Peer: "x"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
	m.err = vnic.ErrInUse
	_, err = s.BenchOpen(ctx, &agentv1.BenchOpenRequest{})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInUse)
}

// An agent that was told not to measure says so, and has nothing to close.
func TestNoBench(t *testing.T) {
	s := newService(Config{Log: slog.New(slog.DiscardHandler), Reports: new(Reports)})
	_, err := s.BenchOpen(t.Context(), &agentv1.BenchOpenRequest{Id: "a", Topology: "native"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnsupported)
	require.ErrorContains(t, err, "-no-bench")
	_, err = s.BenchClose(t.Context(), &agentv1.BenchCloseRequest{Id: "a"})
	require.NoError(t, err)
	s.benchEnds(t.Context())
}
