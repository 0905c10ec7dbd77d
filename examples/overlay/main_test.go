package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// stations are an overlay that nobody sends over: it knows who is elsewhere.
type stations struct {
	mac vnic.MAC

	mu   sync.Mutex
	seen map[vnic.MAC]vnic.Station // guarded by mu
}

// ReplaceStations implements [orchestrator.Overlay].
func (s *stations) ReplaceStations(ctx context.Context, network string, all []vnic.Station) error {
	s.mu.Lock()
	s.seen = map[vnic.MAC]vnic.Station{}
	s.mu.Unlock()
	return s.SetStations(ctx, network, all)
}

// SetStations implements [orchestrator.Overlay].
func (s *stations) SetStations(_ context.Context, _ string, some []vnic.Station) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range some {
		s.seen[st.MAC] = st
	}
	return nil
}

// RemoveStations implements [orchestrator.Overlay].
func (s *stations) RemoveStations(_ context.Context, _ string, macs []vnic.MAC) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range macs {
		delete(s.seen, m)
	}
	return nil
}

// SetHostAddresses implements [orchestrator.Overlay].
func (s *stations) SetHostAddresses(string, []netip.Prefix) {}

// BridgeMAC implements [orchestrator.Overlay].
func (s *stations) BridgeMAC(context.Context, string) (vnic.MAC, error) { return s.mac, nil }

// via returns whether a pod with that address is known to be behind an underlay address.
func (s *stations) via(addr, underlay string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.seen {
		for _, a := range st.Addresses {
			if a.String() == addr && st.Via.String() == underlay {
				return true
			}
		}
	}
	return false
}

// hypervisor is one of several on one store: its halves are in memory, its API is real.
type hypervisor struct {
	orch     *orchestrator.Orchestrator
	api      *daemon.API
	stations *stations
}

func newHypervisor(t *testing.T, ca *tlstest.CA, shared store.Store, name, underlay, vm, pod string) *hypervisor {
	t.Helper()
	h := &hypervisor{stations: &stations{mac: vnic.NewMAC()}}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	world := orchestratortest.New()
	world.Boot(vm, pod)
	conn := world.Conn()
	h.orch, err = orchestrator.New(t.Context(), orchestrator.Config{
		Store: shared, Host: conn, Guest: conn, VMs: conn, Cluster: &orchestrator.Cluster{
			Self:    vnic.Hypervisor{Name: name, Underlay: netip.MustParseAddr(underlay), MTU: 1450, API: l.Addr().String()},
			Overlay: h.stations,
			KeepAlive: func(ctx context.Context, key string, value []byte, _ func()) error {
				_, err := shared.Update(ctx, func(tx store.Tx) error { return tx.Put(key, value) })
				<-ctx.Done()
				return errors.Join(err, ctx.Err())
			},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, h.orch.Close()) })
	conn.Notify(h.orch.Notify)
	require.NoError(t, h.orch.AddVM(t.Context(), vnic.VM{Name: vm, QMP: "/run/" + vm + ".qmp", Channel: "/run/" + vm + ".agent"}))
	log := slog.New(slog.DiscardHandler)
	src, err := tlsfiles.Open(ca.Files(t, name), log)
	require.NoError(t, err)
	h.api = daemon.NewAPI(daemon.APIConfig{Log: log, Orch: h.orch, Directory: h.orch, TLS: src})
	t.Cleanup(h.api.Close)
	serve(t, h.api.ServerTLS(t.Context()), l)
	return h
}

// serve serves until the test ends.
func serve(t *testing.T, srv *grpc.Server, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		assert.NoError(t, <-done)
	})
}

// buffer can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestOverlay: the example talks to the daemon of a alone, and the pods are on a and b.
func TestOverlay(t *testing.T) {
	ca, shared := tlstest.NewCA(t), memstore.New()
	a := newHypervisor(t, ca, shared, "hv-a", "192.0.2.1", "vm1", "web")
	b := newHypervisor(t, ca, shared, "hv-b", "192.0.2.2", "vm2", "db")
	var lc net.ListenConfig
	socket := t.TempDir() + "/brfused.sock"
	l, err := lc.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	serve(t, a.api.Server(t.Context()), l)
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, conn.Close()) })
	client := brfusev1.NewBrfuseClient(conn)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out buffer
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, client, []string{"vm1/web", "vm2/db"}, &out) }()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "vm2/db is on hv-b") }, 10*time.Second, time.Millisecond, "both pods")
	assert.Contains(t, out.String(), "hypervisor hv-b is alive at 192.0.2.2\n")
	assert.Contains(t, out.String(), "network example has vni 1 and mtu 1450\n")
	assert.Contains(t, out.String(), "pod vm1/web is on hv-a\n")
	web, db := addressOf(t, a, "web"), addressOf(t, b, "db")
	assert.NotEqual(t, web, db)
	require.Eventually(t, func() bool { return a.stations.via(db, "192.0.2.2") && b.stations.via(web, "192.0.2.1") },
		10*time.Second, time.Millisecond, "each hypervisor knows the other one's pod")
	cancel()
	require.NoError(t, <-ended)

	left, err := client.List(t.Context(), &brfusev1.ListRequest{All: true})
	require.NoError(t, err)
	assert.Empty(t, left.GetAttachments())
	nets, err := client.ListNetworks(t.Context(), &brfusev1.ListNetworksRequest{})
	require.NoError(t, err)
	assert.Empty(t, nets.GetNetworks())

	require.ErrorContains(t, run(t.Context(), client, []string{"vm1/web", "vm2/none"}, &out), "pod vm2/none")
	left, err = client.List(t.Context(), &brfusev1.ListRequest{All: true})
	require.NoError(t, err)
	assert.Empty(t, left.GetAttachments(), "what it made before the error is taken away")
}

// addressOf returns the IPv4 address of the one attachment on a hypervisor.
func addressOf(t *testing.T, h *hypervisor, pod string) string {
	t.Helper()
	list, err := h.orch.List(t.Context(), orchestrator.Filter{Pod: pod})
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0].Leases[0].Addr().String()
}
