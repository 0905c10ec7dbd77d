package rtnl

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// overlayNS returns a namespace with a VXLAN link that is a port of a bridge.
func overlayNS(t *testing.T) (ns *netnsx.NS, c *Conn, vx Tunneler, br Link) {
	t.Helper()
	ns, c = podNS(t)
	want := VXLAN{VNI: 77, Port: 4790, Local: netip.MustParseAddr("192.0.2.1"), TTL: 64}
	require.NoError(t, c.Do(AddPlainBridge(NewLink{Name: "br"}), AddOverlay(NewLink{Name: "vx", MTU: 1400}, want), GetLink(&br, "br"), GetTunneler(&vx, "vx")))
	assert.Equal(t, want, vx.VXLAN)
	assert.Equal(t, []any{"vx", "vxlan", 1400, 0, false}, []any{vx.Name, vx.Kind, vx.MTU, vx.Master, vx.Up})
	require.NoError(t, c.Do(SetLink(vx.Index, Change{Master: br.Index}), GetTunneler(&vx, "vx")))
	assert.Equal(t, br.Index, vx.Master)
	return ns, c, vx, br
}

func TestIntegrationTunneler(t *testing.T) {
	_, c, vx, br := overlayNS(t)
	for _, f := range []PortFlags{{NeighSuppress: true}, {Learning: true, UnicastFlood: true}, {MulticastFlood: true, BroadcastFlood: true}} {
		require.NoError(t, c.Do(SetPort(vx.Index, f), GetTunneler(&vx, "vx")))
		assert.Equal(t, f, vx.AtBridge)
	}
	six := VXLAN{VNI: 78, Port: 4790, Local: netip.MustParseAddr("2001:db8::1"), TTL: 3}
	plain := Tunnel{VNI: 79, Lower: br.Index, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"), Port: 4790}
	require.NoError(t, c.Do(AddOverlay(NewLink{Name: "vx6"}, six), AddVXLAN(NewLink{Name: "plain"}, plain)))
	require.ErrorIs(t, c.Do(AddOverlay(NewLink{Name: "again"}, six)), unix.EEXIST)
	var all []Tunneler
	require.NoError(t, c.Do(GetTunnelers(&all)))
	require.Len(t, all, 3)
	assert.Equal(t, six, all[1].VXLAN)
	assert.Equal(t, VXLAN{VNI: 79, Lower: br.Index, Local: plain.Local, Remote: plain.Remote, Port: 4790}, all[2].VXLAN)
	var other Tunneler
	require.NoError(t, c.Do(GetTunneler(&other, "a")))
	assert.Zero(t, other.VXLAN, "a veth")
	require.ErrorIs(t, c.Do(GetTunneler(&other, "none")), unix.ENODEV)
}

func TestIntegrationStations(t *testing.T) {
	_, c, vx, br := overlayNS(t)
	mac, end := vnic.MAC{2, 0, 0, 0, 0, 7}, netip.MustParseAddr("192.0.2.7")
	require.NoError(t, c.Do(AddStation(OfLink|OfBridge, vx.Index, mac, end)))
	require.ErrorIs(t, c.Do(AddStation(OfBridge, vx.Index, mac, end)), unix.EEXIST)
	get := func(of uint8) (es []Entry) {
		require.NoError(t, c.Do(GetStation(func(e Entry) { es = append(es, e) }, of, vx.Index, mac)))
		return es
	}
	require.Len(t, get(OfLink), 1)
	require.Len(t, get(OfBridge), 1)
	tunnel, port := get(OfLink)[0], get(OfBridge)[0]
	assert.Equal(t, []any{vx.Index, 0, mac, end, true, false}, []any{tunnel.Index, tunnel.Master, tunnel.MAC, tunnel.End, tunnel.Static(), tunnel.Odd})
	assert.Equal(t, []any{vx.Index, br.Index, mac, true, true, false}, []any{port.Index, port.Master, port.MAC, port.Static(), port.Sticky(), port.Local()})

	end = end.Next()
	require.NoError(t, c.Do(SetStation(OfLink, vx.Index, mac, end), SetStation(OfBridge, vx.Index, mac, end)))
	assert.Equal(t, end, get(OfLink)[0].End)
	var es []Entry
	require.NoError(t, c.Do(GetStations(&es, vx.Index)))
	assert.Len(t, es, 3, "these two, and the port's own")
	require.NoError(t, c.Do(DelStation(OfBridge, vx.Index, mac)))
	assert.Empty(t, get(OfBridge))
	assert.Len(t, get(OfLink), 1)
	require.NoError(t, c.Do(DelStation(OfLink, vx.Index, mac)))
	require.ErrorIs(t, c.Do(DelStation(OfLink, vx.Index, mac)), unix.ENOENT)
}

func TestIntegrationGetNeighbours(t *testing.T) {
	_, c, _, br := overlayNS(t)
	mac := vnic.MAC{2, 0, 0, 0, 0, 7}
	v4, v6 := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")
	a, err := c.Link("a")
	require.NoError(t, err)
	require.NoError(t, c.Do(SetNeighbour(br.Index, v4, mac), SetNeighbour(br.Index, v6, mac), SetNeighbour(a.Index, v4.Next(), mac)))
	for addr, family := range map[netip.Addr]uint8{v4: unix.AF_INET, v6: unix.AF_INET6} {
		var es []Entry
		require.NoError(t, c.Do(GetNeighbours(&es, br.Index, family)))
		require.Len(t, es, 1)
		var one Entry
		require.NoError(t, c.Do(GetNeighbour(func(e Entry) { one = e }, br.Index, addr)))
		assert.Equal(t, es[0], one)
		assert.Equal(t, []any{br.Index, addr, mac, true, true}, []any{one.Index, one.Addr, one.MAC, one.Permanent(), one.Known()})
	}
	require.NoError(t, c.Do(GetNeighbour(func(Entry) { assert.Fail(t, "there is none") }, br.Index, v4.Next())))
}

func TestIntegrationEntryMonitor(t *testing.T) {
	ns, c, vx, br := overlayNS(t)
	var m *EntryMonitor
	require.NoError(t, ns.Do(func() (err error) {
		m, err = NewEntryMonitor()
		return err
	}))
	stop := time.AfterFunc(10*time.Second, func() { _ = m.Close() })
	defer stop.Stop()
	mac, end := vnic.MAC{2, 0, 0, 0, 0, 7}, netip.MustParseAddr("192.0.2.7")
	require.NoError(t, c.Do(
		AddStation(OfLink|OfBridge, vx.Index, mac, end), DelStation(OfLink, vx.Index, mac),
		SetNeighbour(br.Index, end, mac), SetLink(br.Index, Change{MTU: 1300})))
	var got []Entry
	var links []int
	for len(links) == 0 {
		news, err := m.Next()
		require.NoError(t, err, "the news never came")
		assert.False(t, news.Lost)
		got, links = append(got, news.Entries...), append(links, news.Links...)
	}
	require.Len(t, got, 4)
	assert.Equal(t, []any{br.Index, mac, false}, []any{got[0].Master, got[0].MAC, got[0].Gone})
	assert.Equal(t, []any{end, mac, false}, []any{got[1].End, got[1].MAC, got[1].Gone})
	assert.Equal(t, []any{mac, true}, []any{got[2].MAC, got[2].Gone})
	assert.Equal(t, []any{end, mac, false}, []any{got[3].Addr, got[3].MAC, got[3].Gone})
	assert.Contains(t, links, br.Index)

	// More than the buffer takes.
	require.NoError(t, m.raw.Control(func(fd uintptr) {
		assert.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1))
	}))
	var many []Request
	for range 100 {
		many = append(many, AddStation(OfBridge, vx.Index, mac, end), DelStation(OfBridge, vx.Index, mac))
	}
	require.NoError(t, c.Do(append([]Request{DelStation(OfBridge, vx.Index, mac)}, many...)...))
	news, err := m.Next()
	require.NoError(t, err)
	assert.True(t, news.Lost)
	require.NoError(t, m.Close())
}

func FuzzParseEntry(f *testing.F) {
	msg := (&neighMsg{Family: unix.AF_INET, Index: 1, State: unix.NUD_PERMANENT}).Serialize()
	f.Add(msg)
	f.Add(append(msg, nl.NewRtAttr(unix.NDA_DST, []byte{10, 0, 0, 1}).Serialize()...))
	f.Add(nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseEntry(b); err == nil {
			assert.False(t, e.Gone)
			assert.GreaterOrEqual(t, len(b), unix.SizeofNdMsg)
		}
		if l, err := parseTunneler(b); err == nil {
			assert.GreaterOrEqual(t, len(b), unix.SizeofIfInfomsg)
			assert.Less(t, l.Index, 1<<31)
		}
		_, _ = parseNews(b)
	})
}
