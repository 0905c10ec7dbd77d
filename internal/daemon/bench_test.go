package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netbench"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// measured is a Prober of VMs that can be measured.
type measured struct {
	silent

	hang bool // loads go on until the caller goes away

	mu   sync.Mutex // guards open
	open []string   // VMs with a place
}

func (m *measured) BenchOpen(_ context.Context, vm string, _ guestlink.BenchOrder) (guestlink.BenchPlace, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = append(m.open, vm)
	return guestlink.BenchPlace{Netns: "web", Port: 4711, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, nil
}

func (m *measured) BenchServe(context.Context, string, string) (uint16, error) { return 4711, nil }

func (m *measured) BenchReach(_ context.Context, _, _ string, to []netip.Addr, _ uint16) ([]netip.Addr, error) {
	return to, nil
}

func (m *measured) BenchRun(ctx context.Context, _, _ string, _ netip.AddrPort, spec netload.Spec) (guestlink.BenchResult, error) {
	if m.hang {
		<-ctx.Done()
		return guestlink.BenchResult{}, ctx.Err()
	}
	return guestlink.BenchResult{Elapsed: spec.Duration, Sent: 10, Received: 10, Bytes: 640}, nil
}

func (m *measured) BenchClose(_ context.Context, vm, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = slices.DeleteFunc(m.open, func(s string) bool { return s == vm })
	return nil
}

func (m *measured) opened() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.open)
}

// serveMeasured is serve with two VMs and network blue.
func serveMeasured(t *testing.T, m *measured) served {
	t.Helper()
	s := serveWith(t, m)
	s.world.Boot("vm2", "web")
	for _, vm := range []string{"vm1", "vm2"} {
		_, err := s.client.AddVM(t.Context(), &brfusev1.AddVMRequest{Name: vm, Qmp: "/run/" + vm + ".qmp", Channel: "/run/" + vm + ".agent"})
		require.NoError(t, err)
	}
	_, err := s.client.CreateNetwork(t.Context(), &brfusev1.CreateNetworkRequest{Network: &brfusev1.Network{Name: "blue", Subnets: []string{"10.1.0.0/24"}}})
	require.NoError(t, err)
	return s
}

// follow returns what a bench tells, as text, and how it ended.
func follow(ctx context.Context, s served, req *brfusev1.BenchRequest, each func()) (told []string, err error) {
	stream, err := s.client.Bench(ctx, req)
	if err != nil {
		return nil, err
	}
	for {
		ev, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return told, nil
		case err != nil:
			return told, rpcerr.Decode(err)
		case ev.GetSample() != nil:
			told = append(told, ev.GetSample().GetTopology()+" "+ev.GetSample().GetWorkload())
		case ev.GetDone() != nil:
			told = append(told, "done "+ev.GetDone().GetNetwork()+" "+ev.GetDone().GetNativeAddress())
		}
		if each != nil {
			each()
		}
	}
}

func TestBench(t *testing.T) {
	m := &measured{}
	s := serveMeasured(t, m)
	told, err := follow(t.Context(), s, &brfusev1.BenchRequest{
		Vm: "vm1", Peer: "vm2", Rounds: 1, Time: durationpb.New(time.Second), Workloads: []string{"udp_stream/64"},
	}, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"native udp_stream/64", "nat udp_stream/64", "fused udp_stream/64", "done blue 192.0.2.1"}, told)
	assert.Empty(t, m.opened())
	list, err := s.orch.List(t.Context(), orchestrator.Filter{})
	require.NoError(t, err)
	assert.Empty(t, list)

	for _, tt := range []struct {
		name string
		req  *brfusev1.BenchRequest
		want error
	}{
		{"no peer", &brfusev1.BenchRequest{Vm: "vm1"}, vnic.ErrInvalid},
		{"unknown vm", &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm9"}, vnic.ErrUnknownVM},
		{"unknown network", &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2", Network: "red"}, vnic.ErrUnknownNetwork},
		{"workload", &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2", Workloads: []string{"smoke"}}, vnic.ErrInvalid},
		{"workloads", &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2", Workloads: make([]string, 65)}, vnic.ErrInvalid},
		{"rounds", &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2", Rounds: 1 << 31}, vnic.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := follow(t.Context(), s, tt.req, nil)
			require.ErrorIs(t, err, tt.want)
		})
	}
	_, err = follow(t.Context(), serve(t), &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2"}, nil)
	require.ErrorIs(t, err, vnic.ErrUnsupported, "a daemon without links to guests")
}

// TestBenchEnds with its client, and with its daemon, and leaves nothing in either
// case.
func TestBenchEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(s served, client context.CancelFunc)
		want codes.Code
	}{
		{"client goes away", func(_ served, client context.CancelFunc) { client() }, codes.Canceled},
		{"daemon is told to stop", func(s served, _ context.CancelFunc) { s.stop() }, codes.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &measured{hang: true}
			s := serveMeasured(t, m)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := s.client.Bench(ctx, &brfusev1.BenchRequest{Vm: "vm1", Peer: "vm2", Topologies: []string{"fused"}})
			require.NoError(t, err)
			for {
				ev, err := stream.Recv()
				require.NoError(t, err)
				if strings.Contains(ev.GetProgress().GetStep(), "fused, tcp_rr") {
					break
				}
			}
			list, err := s.orch.List(t.Context(), orchestrator.Filter{})
			require.NoError(t, err)
			assert.Len(t, list, 2)
			tt.end(s, cancel)
			_, err = stream.Recv()
			assert.Equal(t, tt.want, status.Code(err))
			require.Eventually(t, func() bool {
				list, err := s.orch.List(t.Context(), orchestrator.Filter{})
				return err == nil && len(list) == 0 && len(m.opened()) == 0
			}, 10*time.Second, 10*time.Millisecond)
		})
	}
}

// TestDropBenches: a daemon that died in a bench left its pods attached.
func TestDropBenches(t *testing.T) {
	s := serveMeasured(t, &measured{})
	for vm, labels := range map[string]map[string]string{"vm1": {netbench.Label: "0123456789"}, "vm2": nil} {
		_, err := s.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: vm, Pod: "web", Interface: "eth0"}, Network: "blue", Labels: labels})
		require.NoError(t, err)
	}
	p := &parts{log: slog.New(slog.DiscardHandler), orch: s.orch}
	p.dropBenches(t.Context(), p.benchLeftovers(t.Context()))
	list, err := s.orch.List(t.Context(), orchestrator.Filter{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "vm2", list[0].Request.VM)
}
