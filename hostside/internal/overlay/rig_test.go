package overlay_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const (
	vni      = 77
	vxlan    = "bfx-77"
	bridge   = "bf-blue"
	underlay = 1500 // bytes, its MTU
)

// hyper is a hypervisor: a namespace with a link to the underlay, and a network.
type hyper struct {
	*netnstest.NS
	addr    netip.Addr // in the underlay
	links   *port.Links
	network vnic.Network
	o       *overlay.Overlay
}

// pod is a namespace with a link to the bridge of its hypervisor.
type pod struct {
	*netnstest.NS
	port   string // at the bridge
	mac    vnic.MAC
	v4, v6 netip.Addr
	on     *hyper
}

func (p *pod) remote() overlay.Remote {
	return overlay.Remote{MAC: p.mac, Addresses: []netip.Addr{p.v4, p.v6}, Host: p.on.addr}
}

// hypers returns so many hypervisors that are joined by a switch.
func hypers(t *testing.T, count int, family6 bool) []*hyper {
	t.Helper()
	sw := netnstest.New(t)
	sw.Run("ip", "link", "add", "sw", "type", "bridge", "mcast_snooping", "0")
	sw.Run("ip", "link", "set", "sw", "up")
	all := make([]*hyper, count)
	for i := range all {
		h := &hyper{NS: netnstest.New(t)}
		connect(t, sw, fmt.Sprintf("p%d", i), h.NS, vnic.NewMAC())
		sw.Run("ip", "link", "set", fmt.Sprintf("p%d", i), "master", "sw", "up")
		h.addr = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))
		bits := "/24"
		if family6 {
			h.addr, bits = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1)), "/64"
		}
		add := []string{"addr", "add", h.addr.String() + bits, "dev", "eth0"}
		if family6 {
			add = append(add, "nodad")
		}
		h.Run("ip", add...)
		h.Run("ip", "link", "set", "eth0", "up")
		h.open(t)
		h.setNetwork(t)
		all[i] = h
	}
	return all
}

// connect makes a veth pair: name in one namespace, eth0 in the other.
func connect(t *testing.T, a *netnstest.NS, name string, b *netnstest.NS, mac vnic.MAC) {
	t.Helper()
	a.In(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		return errors.Join(c.Do(rtnl.AddVeth(rtnl.NewLink{Name: name, MTU: underlay},
			rtnl.NewLink{Name: "eth0", MAC: mac, MTU: underlay, Netns: b.FD()})), c.Close())
	})
}

// open opens the hypervisor's overlay and its links.
func (h *hyper) open(t *testing.T) {
	t.Helper()
	h.In(func() (err error) {
		h.links, err = port.New(quiet())
		return err
	})
	t.Cleanup(func() { require.NoError(t, h.links.Close()) })
	h.restart(t)
}

// restart closes the overlay, if there is one, and opens a new one.
func (h *hyper) restart(t *testing.T) {
	t.Helper()
	if h.o != nil {
		require.NoError(t, h.o.Close())
	} else {
		t.Cleanup(func() { require.NoError(t, h.o.Close()) })
	}
	h.In(func() (err error) {
		h.o, err = overlay.New(overlay.Config{Local: h.addr, Log: quiet()})
		return err
	})
}

func (h *hyper) overlayNetwork() overlay.Network {
	return overlay.Network{Name: "blue", Bridge: bridge, VNI: vni, MTU: h.network.MTU}
}

func (h *hyper) setNetwork(t *testing.T) {
	t.Helper()
	mtu, err := h.o.MTU()
	require.NoError(t, err)
	h.network = vnic.Network{
		Name: "blue", Bridge: bridge, MTU: mtu,
		Subnets:  []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")},
	}
	require.NoError(t, h.links.SetNetwork(t.Context(), h.network))
	require.NoError(t, h.o.SetNetwork(t.Context(), h.overlayNetwork()))
}

// newPod makes a pod with the addresses 10.9.0.n and fd00:9::n.
func (h *hyper) newPod(t *testing.T, n int) *pod {
	t.Helper()
	p := &pod{
		NS: netnstest.New(t), port: fmt.Sprintf("brf%010x", n), mac: vnic.NewMAC(), on: h,
		v4: netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", n)), v6: netip.MustParseAddr(fmt.Sprintf("fd00:9::%d", n)),
	}
	p.join(t, h)
	return p
}

// join gives the pod a link to a hypervisor.
func (p *pod) join(t *testing.T, h *hyper) {
	t.Helper()
	connect(t, h.NS, p.port, p.NS, p.mac)
	p.on = h
	h.Run("ip", "link", "set", p.port, "addrgenmode", "none")
	require.NoError(t, h.links.Join(t.Context(), p.port, h.network, p.mac))
	p.Run("ip", "link", "set", "eth0", "mtu", fmt.Sprint(h.network.MTU), "up")
	p.Run("ip", "addr", "add", p.v4.String()+"/24", "dev", "eth0")
	p.Run("ip", "addr", "add", p.v6.String()+"/64", "dev", "eth0", "nodad")
}

// leave takes the pod from its hypervisor.
func (p *pod) leave() { p.on.Run("ip", "link", "del", p.port) }

// pings fails the test unless the pod reaches both addresses of another one. On a busy
// machine the kernel may lose the first packet of a link that has just come up.
func (p *pod) pings(to *pod) {
	p.Run("ping", "-n", "-c", "1", "-w", "10", to.v4.String())
	p.Run("ping", "-n", "-c", "1", "-w", "10", to.v6.String())
}

// mesh makes a pod on each hypervisor, and declares them to the others.
func mesh(t *testing.T, hs []*hyper) []*pod {
	t.Helper()
	pods := make([]*pod, len(hs))
	for i, h := range hs {
		pods[i] = h.newPod(t, 10+i)
	}
	for _, h := range hs {
		var remotes []overlay.Remote
		for _, p := range pods {
			if p.on != h {
				remotes = append(remotes, p.remote())
			}
		}
		d, err := h.o.Replace(t.Context(), vni, remotes)
		require.NoError(t, err)
		require.Equal(t, overlay.Drift{Missing: 4 * len(remotes)}, d, "two forwarding entries and two neighbours each")
	}
	return pods
}

// quiet returns a log that shows nothing, or all when V is set in the environment.
func quiet() *slog.Logger {
	if os.Getenv("V") != "" {
		return slog.Default()
	}
	return slog.New(slog.DiscardHandler)
}
