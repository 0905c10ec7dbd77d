package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// guest is the orders of VM vm1, which may ask for the networks blue and red, but
// not for green; vm2 may ask for nothing.
type guest struct {
	*orders

	t     *testing.T
	world *orchestratortest.World
	orch  *orchestrator.Orchestrator
}

func inGuest(t *testing.T, test func(g *guest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		world := orchestratortest.New()
		world.Boot("vm1", "web", "db")
		world.Boot("vm2", "web")
		conn := world.Conn()
		orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: conn})
		require.NoError(t, err)
		defer func() { assert.NoError(t, orch.Close()) }()
		conn.Notify(orch.Notify)
		for name, nets := range map[string][]string{"vm1": {"blue", "red"}, "vm2": {vnic.NoNetwork}} {
			require.NoError(t, orch.AddVM(t.Context(), vnic.VM{Name: name, QMP: "/run/" + name + ".qmp", Channel: "/run/" + name, GuestNetworks: nets}))
		}
		for name, subnet := range map[string]string{"blue": "10.1.0.0/24", "red": "10.2.0.0/24", "green": "10.3.0.0/24"} {
			_, err := orch.CreateNetwork(t.Context(), vnic.Network{Name: name, Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}})
			require.NoError(t, err)
		}
		ready := make(chan struct{})
		close(ready)
		synctest.Wait()
		test(&guest{&orders{log: slog.New(slog.DiscardHandler), ready: ready, orch: orch, ports: DefaultPublishPorts}, t, world, orch})
	})
}

func order(pod, network string) vnic.Request {
	return vnic.Request{Key: vnic.Key{Pod: pod, Interface: "eth0"}, Network: network, Manager: "cni"}
}

func mapping(host uint16) vnic.PortMapping {
	return vnic.PortMapping{HostPort: host, Port: 80, Protocol: vnic.TCP}
}

func TestOrdersOfAGuest(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		a, err := g.Attach(ctx, "vm1", order("web", "blue"))
		require.NoError(g.t, err)
		assert.Equal(g.t, vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, a.Request.Key)
		list, err := g.Attachments(ctx, "vm1", "cni")
		require.NoError(g.t, err)
		require.Len(g.t, list, 1)
		assert.Equal(g.t, a.ID, list[0].ID)
		list, err = g.Attachments(ctx, "vm1", "docker")
		require.NoError(g.t, err)
		assert.Empty(g.t, list)
		_, err = g.Check(ctx, "vm1", "web", "eth0")
		require.NoError(g.t, err)
		require.NoError(g.t, g.Publish(ctx, "vm1", "web", "eth0", []vnic.PortMapping{mapping(8080)}))
		assert.Contains(g.t, g.world.String(), "port 8080:80/tcp of "+string(a.ID))
		require.NoError(g.t, g.Ready(ctx, "vm1", "blue"))
		require.NoError(g.t, g.Detach(ctx, "vm1", "web", "eth0"))
		require.NoError(g.t, g.Detach(ctx, "vm1", "web", "eth0"))
		_, err = g.Check(ctx, "vm1", "web", "eth0")
		require.ErrorIs(g.t, err, vnic.ErrNotFound)
		assert.NotContains(g.t, g.world.String(), "tap ")
	})
}

func TestNetworksOfAGuest(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		names := func(vm string) (names []string) {
			nets, err := g.Networks(ctx, vm)
			require.NoError(g.t, err)
			for _, n := range nets {
				names = append(names, n.Name)
			}
			return names
		}
		assert.Equal(g.t, []string{"blue", "red"}, names("vm1"))
		assert.Empty(g.t, names("vm2"))
		_, err := g.Networks(ctx, "vm3")
		require.ErrorIs(g.t, err, vnic.ErrUnknownVM)
		for _, vm := range []string{"vm1", "vm2"} {
			_, err = g.Attach(ctx, vm, order("web", "green"))
			require.ErrorIs(g.t, err, vnic.ErrForbidden)
			require.ErrorIs(g.t, g.Ready(ctx, vm, "green"), vnic.ErrForbidden)
			_, err = g.Reserve(ctx, vm, "green", netip.Addr{}, false)
			require.ErrorIs(g.t, err, vnic.ErrForbidden)
		}
		assert.NotContains(g.t, g.world.String(), "tap ")
		_, err = g.Attach(ctx, "vm1", order("web", ""))
		require.ErrorIs(g.t, err, vnic.ErrUnknownNetwork)
		assert.ErrorContains(g.t, err, "may ask for 2, [blue red]")
	})
}

// TestGuestNetworksChange: adding the VM again is how, and it takes effect at once.
func TestGuestNetworksChange(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		_, err := g.Attach(ctx, "vm1", order("web", "blue"))
		require.NoError(g.t, err)
		require.NoError(g.t, g.orch.AddVM(ctx, vnic.VM{Name: "vm1", QMP: "/run/vm1.qmp", Channel: "/run/vm1", GuestNetworks: []string{"red"}}))
		_, err = g.Attach(ctx, "vm1", order("db", "blue"))
		require.ErrorIs(g.t, err, vnic.ErrForbidden)
		a, err := g.Attach(ctx, "vm1", order("db", ""))
		require.NoError(g.t, err)
		assert.Equal(g.t, "red", a.Request.Network, "the only one")
		list, err := g.Attachments(ctx, "vm1", "")
		require.NoError(g.t, err)
		assert.Len(g.t, list, 2, "what it had stays")
		require.NoError(g.t, g.Detach(ctx, "vm1", "web", "eth0"))
	})
}

// TestWhatTheHypervisorAttached is none of the guest's business.
func TestWhatTheHypervisorAttached(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		req := order("web", "blue")
		req.VM, req.Manager = "vm1", ""
		a, err := g.orch.Attach(ctx, req)
		require.NoError(g.t, err)
		require.ErrorIs(g.t, g.Detach(ctx, "vm1", "web", "eth0"), vnic.ErrForbidden)
		require.ErrorIs(g.t, g.Publish(ctx, "vm1", "web", "eth0", nil), vnic.ErrForbidden)
		_, err = g.Check(ctx, "vm1", "web", "eth0")
		require.ErrorIs(g.t, err, vnic.ErrForbidden)
		list, err := g.Attachments(ctx, "vm1", "")
		require.NoError(g.t, err)
		assert.Empty(g.t, list)
		_, err = g.Attach(ctx, "vm1", order("web", "blue"))
		require.ErrorIs(g.t, err, vnic.ErrConflict)
		got, err := g.orch.Get(ctx, a.ID)
		require.NoError(g.t, err)
		assert.Equal(g.t, vnic.PhaseReady, got.Phase)
		for _, manager := range []string{"", "root"} {
			req.Manager = manager
			_, err = g.Attach(ctx, "vm1", req)
			require.ErrorIs(g.t, err, vnic.ErrForbidden)
		}
	})
}

func TestAnotherVMsPods(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		req := order("web", "blue")
		req.VM = "vm2" // the channel says vm1
		a, err := g.Attach(ctx, "vm1", req)
		require.NoError(g.t, err)
		assert.Equal(g.t, "vm1", a.Request.VM)
		require.NoError(g.t, g.Detach(ctx, "vm2", "web", "eth0"), "it has none")
		require.ErrorIs(g.t, g.Publish(ctx, "vm2", "web", "eth0", nil), vnic.ErrNotFound)
		_, err = g.Check(ctx, "vm1", "web", "eth0")
		require.NoError(g.t, err)
	})
}

// TestWhoseItIs: a guest learns that something is taken, and not by whom; the
// daemon's API tells.
func TestWhoseItIs(t *testing.T) {
	const addr, mac = "10.1.0.9", "02:00:5e:00:53:01"
	wants := map[string]struct {
		change func(*vnic.Request)
		text   string
		err    error
	}{
		"address": {func(r *vnic.Request) { r.Addresses = []netip.Addr{netip.MustParseAddr(addr)} }, "address " + addr + ": choose another: address taken", vnic.ErrAddressTaken},
		"mac":     {func(r *vnic.Request) { r.MAC, _ = vnic.ParseMAC(mac) }, "mac " + mac + ": choose another: address taken", vnic.ErrAddressTaken},
		"port":    {func(r *vnic.Request) { r.Ports = []vnic.PortMapping{mapping(8080)} }, "port 8080/tcp: choose another: port of the hypervisor taken", vnic.ErrPortTaken},
		"gateway": {func(r *vnic.Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.1")} }, "address 10.1.0.1: choose another: address taken", vnic.ErrAddressTaken},
		"reserved": {
			func(r *vnic.Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.20")} }, "address 10.1.0.20: choose another: address taken", vnic.ErrAddressTaken,
		},
	}
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		other := order("web", "blue")
		other.VM, other.Manager = "vm2", ""
		for name, want := range wants {
			if name != "gateway" && name != "reserved" {
				want.change(&other)
			}
		}
		_, err := g.orch.Attach(ctx, other)
		require.NoError(g.t, err)
		_, err = g.orch.Reserve(ctx, "vm2", "blue", netip.MustParseAddr("10.1.0.20"), false)
		require.NoError(g.t, err)
		for name, want := range wants {
			req := order("db", "blue")
			want.change(&req)
			_, err := g.Attach(ctx, "vm1", req)
			require.ErrorIs(g.t, err, want.err, name)
			require.EqualError(g.t, err, want.text, name)
			req.VM = "vm1"
			_, err = g.orch.Attach(ctx, req)
			require.ErrorIs(g.t, err, want.err, name)
			assert.Greater(g.t, len(err.Error()), len(want.text), name)
		}
		_, err = g.Reserve(ctx, "vm1", "blue", netip.MustParseAddr(addr), false)
		require.ErrorIs(g.t, err, vnic.ErrAddressTaken)
		assert.NotContains(g.t, err.Error(), "vm2")
		_, err = g.Attach(ctx, "vm1", order("db", "blue"))
		require.NoError(g.t, err)
		err = g.Publish(ctx, "vm1", "db", "eth0", []vnic.PortMapping{mapping(8080)})
		require.EqualError(g.t, err, wants["port"].text)
	})
}

// TestDiscreetWithoutDetails: an error that doesn't tell what is taken from whose it
// is gives away neither.
func TestDiscreetWithoutDetails(t *testing.T) {
	o := &orders{log: slog.New(slog.DiscardHandler)}
	err := o.discreet(fmt.Errorf("port 8080 of vm2/web: %w", vnic.ErrPortTaken))
	require.ErrorIs(t, err, vnic.ErrPortTaken)
	require.EqualError(t, err, "choose another: port of the hypervisor taken")
	other := fmt.Errorf("network blue: %w", vnic.ErrPoolExhausted)
	assert.Equal(t, other, o.discreet(other))
	assert.NoError(t, o.discreet(nil))
}

func TestPortsOfAGuest(t *testing.T) {
	tests := []struct {
		name  string
		ports string
		host  uint16
		ok    bool
	}{
		{"in the default range", "1024-65535", 8080, true},
		{"first", "8080-9000", 8080, true},
		{"last", "1-8080", 8080, true},
		{"below", "8081-9000", 8080, false},
		{"above", "1-8079", 8080, false},
		{"one port", "22", 22, true},
		{"none", "none", 8080, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inGuest(t, func(g *guest) {
				require.NoError(g.t, g.ports.UnmarshalText([]byte(tt.ports)))
				req := order("web", "blue")
				req.Ports = []vnic.PortMapping{mapping(tt.host)}
				_, err := g.Attach(g.t.Context(), "vm1", req)
				perr := g.Publish(g.t.Context(), "vm1", "web", "eth0", req.Ports)
				if tt.ok {
					require.NoError(g.t, err)
					require.NoError(g.t, perr)
					return
				}
				require.ErrorIs(g.t, err, vnic.ErrForbidden)
				require.ErrorIs(g.t, perr, vnic.ErrForbidden)
				assert.ErrorContains(g.t, err, "guests may have ports "+tt.ports)
			})
		})
	}
}

func TestQueuesOfAGuest(t *testing.T) {
	inGuest(t, func(g *guest) {
		req := order("web", "blue")
		req.Queues = maxGuestQueues + 1
		_, err := g.Attach(g.t.Context(), "vm1", req)
		require.ErrorIs(g.t, err, vnic.ErrForbidden)
		require.ErrorContains(g.t, err, "queues 17: guests may have 16")
		req.Queues = maxGuestQueues
		_, err = g.Attach(g.t.Context(), "vm1", req)
		require.NoError(g.t, err)
		req.VM, req.Pod, req.Queues, req.Manager = "vm1", "db", vnic.MaxQueues, ""
		_, err = g.orch.Attach(g.t.Context(), req)
		require.NoError(g.t, err, "the daemon's API is not limited")
	})
}

func TestPortRangeText(t *testing.T) {
	for _, bad := range []string{"", "0", "0-5", "5-4", "1-65536", "a-b", "1-2-3", "-1", "1-"} {
		var r PortRange
		require.ErrorIs(t, r.UnmarshalText([]byte(bad)), vnic.ErrInvalid, bad)
	}
	var r PortRange
	require.NoError(t, r.UnmarshalText([]byte("80-90")))
	assert.Equal(t, PortRange{80, 90}, r)
	text, err := r.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, "80-90", string(text))
}

// TestSessionEndsDuringAttach: whoever asked is gone, so all is undone.
func TestSessionEndsDuringAttach(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx, cancel := context.WithCancel(g.t.Context())
		g.world.Before("move", func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() })
		_, err := g.Attach(ctx, "vm1", order("web", "blue"))
		require.ErrorIs(g.t, err, context.Canceled)
		assert.NotContains(g.t, g.world.String(), "tap ")
		g.world.Before("move", nil)
		_, err = g.Attach(g.t.Context(), "vm1", order("web", "blue"))
		require.NoError(g.t, err)
	})
}

// TestPublishOneByOne: a guest that changes many ports at once has one change under
// way, and keeps no other VM from its own.
func TestPublishOneByOne(t *testing.T) {
	inGuest(t, func(g *guest) {
		ctx := g.t.Context()
		for _, pod := range []string{"web", "db"} {
			_, err := g.Attach(ctx, "vm1", order(pod, "blue"))
			require.NoError(g.t, err)
		}
		before := g.world.Calls("plug")
		release := make(chan struct{})
		g.world.Before("plug", func(context.Context) error { <-release; return nil })
		done := make(chan error, 2)
		for i, pod := range []string{"web", "db"} {
			go func() { done <- g.Publish(ctx, "vm1", pod, "eth0", []vnic.PortMapping{mapping(uint16(8080 + i))}) }()
		}
		synctest.Wait()
		assert.Equal(g.t, before+1, g.world.Calls("plug"))
		require.ErrorIs(g.t, g.Publish(ctx, "vm2", "web", "eth0", nil), vnic.ErrNotFound, "it does not wait")
		close(release)
		require.NoError(g.t, <-done)
		require.NoError(g.t, <-done)
	})
}

// TestOrdersThatHang: a guest's order ends by itself.
func TestOrdersThatHang(t *testing.T) {
	inGuest(t, func(g *guest) {
		g.world.Hang("ports")
		_, err := g.Attach(g.t.Context(), "vm1", order("web", "blue"))
		require.NoError(g.t, err)
		_, err = g.Check(g.t.Context(), "vm1", "web", "eth0")
		require.ErrorIs(g.t, err, context.DeadlineExceeded)
		g.world.Before("ports", nil)
		g.world.Hang("free")
		require.ErrorIs(g.t, g.Ready(g.t.Context(), "vm1", "blue"), context.DeadlineExceeded)
	})
}

// TestDaemonStopsDuringAttach: the guest may ask again, once there is another.
func TestDaemonStopsDuringAttach(t *testing.T) {
	inGuest(t, func(g *guest) {
		g.world.Hang("move")
		done := make(chan error, 1)
		go func() {
			_, err := g.Attach(g.t.Context(), "vm1", order("web", "blue"))
			done <- err
		}()
		synctest.Wait()
		require.NoError(g.t, g.orch.Close())
		require.ErrorIs(g.t, <-done, vnic.ErrHostUnavailable)
		assert.NotContains(g.t, g.world.String(), "tap ")
	})
}

func TestOrdersBeforeAndAfterTheDaemonsLife(t *testing.T) {
	inGuest(t, func(g *guest) {
		early := &orders{log: slog.New(slog.DiscardHandler), ready: make(chan struct{}), ports: DefaultPublishPorts}
		_, err := early.Networks(g.t.Context(), "vm1")
		require.ErrorIs(g.t, err, vnic.ErrHostUnavailable)
		require.NoError(g.t, g.orch.Close())
		_, err = g.Attach(g.t.Context(), "vm1", order("web", "blue"))
		require.ErrorIs(g.t, err, vnic.ErrHostUnavailable)
		require.ErrorIs(g.t, g.Detach(g.t.Context(), "vm1", "web", "eth0"), vnic.ErrHostUnavailable)
		_, err = g.Reserve(g.t.Context(), "vm1", "blue", netip.Addr{}, false)
		require.ErrorIs(g.t, err, vnic.ErrHostUnavailable)
	})
}
