package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/internal/wire"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// channel is a daemon whose links are real, and whose halves are in memory.
type channel struct {
	world    *orchestratortest.World
	orch     *orchestrator.Orchestrator
	listener net.Listener // the guest's end
}

// both registers VMs with the halves in memory and with the links.
type both struct {
	*orchestratortest.Conn

	links *guestlink.Links
}

func (b both) AddVM(ctx context.Context, vm vnic.VM) error {
	return errors.Join(b.Conn.AddVM(ctx, vm), b.links.AddVM(ctx, vm))
}

func (b both) RemoveVM(ctx context.Context, name string) error {
	return errors.Join(b.links.RemoveVM(ctx, name), b.Conn.RemoveVM(ctx, name))
}

func newChannel(t *testing.T) *channel {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vm1")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	world := orchestratortest.New()
	world.Boot("vm1", "web")
	conn := world.Conn()
	ready := make(chan struct{})
	o := &orders{ready: ready, ports: DefaultPublishPorts}
	links := guestlink.New(guestlink.Config{Orders: o})
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: both{conn, links}})
	require.NoError(t, err)
	o.orch = orch
	close(ready)
	conn.Notify(orch.Notify)
	t.Cleanup(func() {
		assert.NoError(t, orch.Close())
		assert.NoError(t, links.Close())
	})
	require.NoError(t, orch.AddVM(t.Context(), vnic.VM{Name: "vm1", QMP: "/run/vm1.qmp", Channel: path}))
	_, err = orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	require.NoError(t, err)
	return &channel{world, orch, l}
}

// agent shakes hands as the guest's agent.
func (c *channel) agent(t *testing.T) (*wire.Session, agentv1.HostService) {
	t.Helper()
	conn, err := c.listener.Accept()
	require.NoError(t, err)
	s, err := wire.Guest(t.Context(), conn, wire.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s, agentv1.NewHostClient(s.Client())
}

// TestOrdersOverTheChannel is an agent's attach and detach, with all between
// agent and orchestrator real.
func TestOrdersOverTheChannel(t *testing.T) {
	c := newChannel(t)
	_, host := c.agent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	nets, err := host.Networks(ctx, &agentv1.NetworksRequest{})
	require.NoError(t, err)
	require.Len(t, nets.GetNetworks(), 1)
	assert.Equal(t, "blue", nets.GetNetworks()[0].GetName())
	req := &agentv1.AttachRequest{
		Pod: "web", Interface: "eth0", Netns: "web", Manager: "cni", Labels: map[string]string{"k8s.pod": "web-0"},
		Ports: []*agentv1.PortMapping{{HostPort: 8080, Port: 80, Protocol: "tcp"}},
	}
	a, err := host.Attach(ctx, req)
	require.NoError(t, err)
	assert.Contains(t, c.world.String(), "port 8080:80/tcp of "+a.GetId())
	again, err := host.Attach(ctx, req)
	require.NoError(t, err)
	assert.Equal(t, a.GetId(), again.GetId())
	_, err = host.Check(ctx, &agentv1.HostCheckRequest{Pod: "web", Interface: "eth0"})
	require.NoError(t, err)
	_, err = host.Ready(ctx, &agentv1.ReadyRequest{Network: "blue"})
	require.NoError(t, err)
	_, err = host.Ready(ctx, &agentv1.ReadyRequest{Network: "green"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnknownNetwork)
	req.Ports[0].HostPort = 80
	_, err = host.Attach(ctx, req)
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrForbidden)
	r, err := host.Reserve(ctx, &agentv1.ReserveRequest{Network: "blue"})
	require.NoError(t, err)
	assert.Equal(t, "10.1.0.3/24", r.GetAddress())
	_, err = host.Detach(ctx, &agentv1.DetachRequest{Pod: "web", Interface: "eth0"})
	require.NoError(t, err)
	assert.NotContains(t, c.world.String(), "tap ")
}

// TestAgentDiesDuringAttach: what it asked for is undone without it.
func TestAgentDiesDuringAttach(t *testing.T) {
	c := newChannel(t)
	s, host := c.agent(t)
	moving := make(chan struct{})
	c.world.Before("move", func(ctx context.Context) error { close(moving); <-ctx.Done(); return ctx.Err() })
	errs := make(chan error, 1)
	go func() {
		_, err := host.Attach(t.Context(), &agentv1.AttachRequest{Pod: "web", Interface: "eth0", Netns: "web", Manager: "cni"})
		errs <- err
	}()
	<-moving
	require.NoError(t, s.Close())
	require.Error(t, <-errs)
	require.Eventually(t, func() bool {
		list, err := c.orch.List(t.Context(), orchestrator.Filter{})
		return err == nil && len(list) == 0
	}, 10*time.Second, 10*time.Millisecond)
	assert.NotContains(t, c.world.String(), "tap ")
	c.world.Before("move", nil)
	_, host = c.agent(t)
	_, err := host.Attach(t.Context(), &agentv1.AttachRequest{Pod: "web", Interface: "eth0", Netns: "web", Manager: "cni"})
	require.NoError(t, err)
}
