package rtnl_test

import (
	"io/fs"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// newNetns returns a network namespace and a connection to it.
func newNetns(t *testing.T) (*netnsx.NS, *rtnl.Conn) {
	t.Helper()
	inNewNetns(t, func(*rtnl.Handle) error { return nil }) // skips without root
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	var c *rtnl.Conn
	require.NoError(t, ns.Do(func() (err error) {
		c, err = rtnl.Dial()
		return err
	}))
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return ns, c
}

// linkIn returns a link of another namespace.
func linkIn(t *testing.T, ns *netnsx.NS, name string) (l rtnl.Link) {
	t.Helper()
	require.NoError(t, ns.Do(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer func() { assert.NoError(t, c.Close()) }()
		l, err = c.Link(name)
		return err
	}))
	return l
}

func TestIntegrationAddVeth(t *testing.T) {
	_, c := newNetns(t)
	other, _ := newNetns(t)
	mac := vnic.MAC{2, 0, 0, 0, 0, 1}
	end := rtnl.NewLink{Name: "v0", MTU: 1400, Group: 7}
	require.NoError(t, c.Do(rtnl.AddVeth(end, rtnl.NewLink{Name: "eth0", MAC: mac, MTU: 1300, Group: 8, Netns: other.FD()})))
	l, err := c.Link("v0")
	require.NoError(t, err)
	assert.Equal(t, []any{"veth", 1400, uint32(7), false}, []any{l.Kind, l.MTU, l.Group, l.Up})
	peer := linkIn(t, other, "eth0")
	assert.Equal(t, []any{"veth", 1300, uint32(8), mac}, []any{peer.Kind, peer.MTU, peer.Group, peer.MAC})

	err = c.Do(rtnl.AddVeth(end, rtnl.NewLink{Name: "v1"}))
	require.ErrorIs(t, err, unix.EEXIST)
	require.ErrorContains(t, err, "add veth v0 with peer v1: ")
	require.NoError(t, c.Do(rtnl.SetLink(l.Index, rtnl.Change{Alias: "mine"})))
	l, err = c.Link("v0")
	require.NoError(t, err)
	assert.Equal(t, "mine", l.Alias)
	require.NoError(t, c.Do(rtnl.DelLink(l.Index)))
	_, err = c.Link("v0")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, c.Do(rtnl.DelLink(l.Index)), unix.ENODEV)
}

func TestIntegrationAddBridge(t *testing.T) {
	_, c := newNetns(t)
	require.NoError(t, c.Do(
		rtnl.AddPlainBridge(rtnl.NewLink{Name: "br", Group: 7}),
		rtnl.AddVeth(rtnl.NewLink{Name: "v0"}, rtnl.NewLink{Name: "v1"}),
	))
	br, err := c.Link("br")
	require.NoError(t, err)
	assert.Equal(t, []any{"bridge", uint32(7)}, []any{br.Kind, br.Group})
	port, err := c.Link("v0")
	require.NoError(t, err)
	require.NoError(t, c.Do(rtnl.SetLink(port.Index, rtnl.Change{Master: br.Index})))
	port, err = c.Link("v0")
	require.NoError(t, err)
	assert.Equal(t, br.Index, port.Master)
}

func TestIntegrationAddVXLAN(t *testing.T) {
	_, c := newNetns(t)
	other, _ := newNetns(t)
	require.NoError(t, c.Do(rtnl.AddVeth(rtnl.NewLink{Name: "eth0"}, rtnl.NewLink{Name: "eth1"})))
	lower, err := c.Link("eth0")
	require.NoError(t, err)
	require.NoError(t, c.Do(rtnl.SetUp(lower.Index)))
	for name, tunnel := range map[string]rtnl.Tunnel{
		"vx4": {VNI: 77, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2")},
		"vx6": {VNI: 78, Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddr("2001:db8::2")},
	} {
		tunnel.Lower, tunnel.Port = lower.Index, 4789
		require.NoError(t, c.Do(rtnl.AddVXLAN(rtnl.NewLink{Name: name, MTU: 1400, Group: 7}, tunnel)), name)
		require.ErrorIs(t, c.Do(rtnl.AddVXLAN(rtnl.NewLink{Name: "again"}, tunnel)), unix.EEXIST)
		l, err := c.Link(name)
		require.NoError(t, err)
		assert.Equal(t, []any{"vxlan", 1400, uint32(7)}, []any{l.Kind, l.MTU, l.Group})
		mac := vnic.MAC{2, 0, 0, 0, 0, 1}
		require.NoError(t, c.Do(rtnl.SetTunnel(l.Index, mac, tunnel.Remote), rtnl.SetTunnel(l.Index, mac, tunnel.Remote)), "twice")
		require.NoError(t, c.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: other.FD()})))
		assert.Equal(t, uint32(7), linkIn(t, other, name).Group, "it keeps its group")
		require.ErrorIs(t, c.Do(rtnl.AddVXLAN(rtnl.NewLink{Name: "again"}, tunnel)), unix.EEXIST, "it keeps its number")
	}
}

func TestIntegrationForwarding(t *testing.T) {
	ns, c := newNetns(t)
	require.NoError(t, c.Do(rtnl.AddVeth(rtnl.NewLink{Name: "eth0.5"}, rtnl.NewLink{Name: "eth1"})))
	for _, want := range []bool{true, true, false} {
		var got [2]bool
		require.NoError(t, ns.Do(func() (err error) {
			if err = rtnl.SetForwarding("eth0.5", want); err != nil {
				return err
			}
			if got[0], err = rtnl.Forwarding("eth0.5"); err != nil {
				return err
			}
			got[1], err = rtnl.Forwarding("eth1")
			return err
		}))
		assert.Equal(t, [2]bool{want, false}, got, "the other link's stays")
	}
	_, err := rtnl.Forwarding("brfuse-none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, rtnl.SetForwarding("brfuse-none", true), fs.ErrNotExist)
}
