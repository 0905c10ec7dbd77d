package daemon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// cluster is several daemons whose APIs are real, over TCP with TLS, and whose halves
// and stores are in memory. Its methods are a directory that looks into all of them.
type cluster struct {
	ca *tlstest.CA

	mu      sync.Mutex // guards the following
	members []*member
	removed []string
}

// member is hypervisor NAME, with VMs NAME1 and NAME2, each with a pod web, and network
// blue. Pod only-NAME is in NAME1 alone.
type member struct {
	c     *cluster
	world *orchestratortest.World
	bench *measured
	orch  *orchestrator.Orchestrator
	files tlsfiles.Files
	api   *API
	log   logBuffer
	// client calls it over TCP.
	client brfusev1.BrfuseClient

	mu    sync.Mutex // guards the following
	self  vnic.Hypervisor
	state string
	lies  map[string]string // what it believes: which hypervisor has a VM
	srv   *grpc.Server
	done  chan error
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// calls returns how often a call was served.
func (l *logBuffer) calls(method string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), "/"+method+" ")
}

func newCluster(t *testing.T, names ...string) *cluster {
	t.Helper()
	c := &cluster{ca: tlstest.NewCA(t)}
	for _, name := range names {
		c.members = append(c.members, c.newMember(t, name))
	}
	return c
}

func (c *cluster) newMember(t *testing.T, name string) *member {
	t.Helper()
	m := &member{
		c: c, world: orchestratortest.New(), bench: &measured{}, files: c.ca.Files(t, name),
		self: vnic.Hypervisor{Name: name}, state: vnic.HypervisorAlive, lies: map[string]string{},
	}
	m.world.Boot(name+"1", "web", "only-"+name)
	m.world.Boot(name+"2", "web")
	conn := m.world.Conn()
	var err error
	m.orch, err = orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: conn})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.orch.Close()) })
	for _, vm := range []string{name + "1", name + "2"} {
		require.NoError(t, m.orch.AddVM(t.Context(), vnic.VM{Name: vm, QMP: "/run/" + vm + ".qmp", Channel: "/run/" + vm + ".agent"}))
	}
	_, err = m.orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(&m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	src, err := tlsfiles.Open(m.files, log)
	require.NoError(t, err)
	m.api = NewAPI(APIConfig{Log: log, Orch: m.orch, VMs: m.bench, Directory: m, TLS: src})
	t.Cleanup(m.api.Close)
	m.start(t, "127.0.0.1:0")
	t.Cleanup(func() { m.stop(t) })
	m.client = c.dial(t, m.self)
	return m
}

// start serves the API.
func (m *member) start(t *testing.T, addr string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", addr)
	require.NoError(t, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.self.API = l.Addr().String()
	m.srv, m.done = m.api.ServerTLS(t.Context()), make(chan error, 1)
	go func() { m.done <- m.srv.Serve(l) }()
}

// stop ends it as a crash does. It may be repeated.
func (m *member) stop(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.srv != nil {
		m.srv.Stop()
		if err := <-m.done; !errors.Is(err, grpc.ErrServerStopped) { // which it is when it had not begun
			assert.NoError(t, err)
		}
		m.srv = nil
	}
}

// dial connects as a user does.
func (c *cluster) dial(t *testing.T, h vnic.Hypervisor) brfusev1.BrfuseClient {
	t.Helper()
	src, err := tlsfiles.Open(c.ca.Files(t), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	cc, err := grpc.NewClient("passthrough:///"+h.API, grpc.WithTransportCredentials(credentials.NewTLS(src.Client(h.Name))))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, cc.Close()) })
	return brfusev1.NewBrfuseClient(cc)
}

func (c *cluster) member(name string) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[slices.IndexFunc(c.members, func(m *member) bool { return m.api.peers.self == name })]
}

// change changes what all know of a member.
func (m *member) change(fn func(m *member)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(m)
}

func (m *member) status() vnic.HypervisorStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return vnic.HypervisorStatus{Hypervisor: m.self, State: m.state}
}

// Hypervisor implements [Directory].
func (m *member) Hypervisor() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.self.Name
}

// HypervisorOf implements [Directory].
func (m *member) HypervisorOf(ctx context.Context, vm string) (vnic.Hypervisor, error) {
	m.mu.Lock()
	lie := m.lies[vm]
	m.mu.Unlock()
	if lie == "error" {
		return vnic.Hypervisor{}, assert.AnError
	}
	for _, o := range m.c.members {
		st := o.status()
		if _, err := o.orch.VM(ctx, vm); err == nil && lie == "" || lie == st.Name {
			return st.Hypervisor, nil
		}
	}
	return vnic.Hypervisor{}, fmt.Errorf("vm %s: %w", vm, vnic.ErrUnknownVM)
}

// HypervisorOfAttachment implements [Directory].
func (m *member) HypervisorOfAttachment(ctx context.Context, id vnic.ID) (vnic.Hypervisor, error) {
	for _, o := range m.c.members {
		if _, err := o.orch.Get(ctx, id); err == nil {
			return o.status().Hypervisor, nil
		}
	}
	return vnic.Hypervisor{}, vnic.ErrNotFound
}

// HypervisorsOfPod implements [Directory].
func (m *member) HypervisorsOfPod(pod string) (names []string) {
	for _, o := range m.c.members {
		list, err := o.orch.List(context.Background(), orchestrator.Filter{Pod: pod})
		if err == nil && len(list) > 0 {
			names = append(names, o.Hypervisor())
		}
	}
	return names
}

// Hypervisors implements [Directory].
func (m *member) Hypervisors(context.Context) (list []vnic.HypervisorStatus, err error) {
	for _, o := range m.c.members {
		list = append(list, o.status())
	}
	return slices.SortedFunc(slices.Values(list), func(a, b vnic.HypervisorStatus) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// RemoveHypervisor implements [Directory].
func (m *member) RemoveHypervisor(_ context.Context, name string) error {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.removed = append(m.c.removed, name)
	return nil
}
