package rtnl

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// runIn runs lines of words in a namespace, one program each.
func runIn(t *testing.T, ns *netnsx.NS, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var out []byte
		err := ns.Do(func() (err error) {
			out, err = exec.CommandContext(t.Context(), f[0], f[1:]...).CombinedOutput()
			return err
		})
		require.NoError(t, err, "%s: %s", line, out)
	}
}

// TestIntegrationPathLink asks for what leads on from links.
func TestIntegrationPathLink(t *testing.T) {
	ns, c := podNS(t)
	other, err := netnsx.New()
	require.NoError(t, err)
	defer other.Close()
	id := 0
	require.NoError(t, c.Do(GetNetnsID(&id, other.FD())))
	assert.Equal(t, -1, id, "nothing leads there yet")
	var b Link
	require.NoError(t, c.Do(GetLink(&b, "b")))
	require.NoError(t, c.Do(SetLink(b.Index, Change{Netns: other.FD()})))
	require.NoError(t, c.Do(GetNetnsID(&id, other.FD())))

	var a PathLink
	require.NoError(t, c.Do(GetPathLinkName(&a, "a")))
	assert.Equal(t, "veth", a.Kind)
	assert.Equal(t, b.Index, a.Peer)
	assert.Equal(t, id, a.PeerNetns)
	assert.GreaterOrEqual(t, id, 0)
	var again PathLink
	require.NoError(t, c.Do(GetPathLink(&again, a.Index)))
	assert.Equal(t, a.Name, again.Name)
	require.ErrorIs(t, c.Do(GetPathLinkName(&a, "none")), unix.ENODEV)

	runIn(t, ns, `
		ip link set lo up
		ping -q -c 2 -i 0.01 127.0.0.1
		ip link add vx0 type vxlan id 7 dstport 4789 local 127.0.0.1 dev lo
		bridge fdb append 02:00:00:00:00:01 dev vx0 dst 192.0.2.1
		bridge fdb append 00:00:00:00:00:00 dev vx0 dst 192.0.2.2
		bridge fdb append 02:00:00:00:00:02 dev vx0 dst 192.0.2.1
		ip tuntap add t0 mode tap vnet_hdr multi_queue
	`)
	var lo, vx, tap PathLink
	require.NoError(t, c.Do(GetPathLinkName(&lo, "lo"), GetPathLinkName(&vx, "vx0"), GetPathLinkName(&tap, "t0")))
	assert.GreaterOrEqual(t, lo.Stats.RxPackets, uint64(4), "two there and two back")
	assert.GreaterOrEqual(t, lo.Stats.TxBytes, uint64(4*84))
	assert.Equal(t, -1, lo.PeerNetns)
	assert.Equal(t, &VXLANFacts{VNI: 7, Port: 4789, Lower: lo.Index, Local: netip.MustParseAddr("127.0.0.1")}, vx.VXLAN)
	assert.Equal(t, &TapFlags{VnetHdr: true, MultiQueue: true}, tap.Tap)

	var ends []netip.Addr
	require.NoError(t, c.Do(GetTunnelEnds(&ends, vx.Index)))
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")}, ends, "that of all first")
	var ports []int
	require.NoError(t, c.Do(GetPortsOf(&ports, vnic.MAC{2, 0, 0, 0, 0, 1})))
	assert.Equal(t, []int{vx.Index}, ports)
}

func TestIntegrationLookUpRoute(t *testing.T) {
	ns, c := podNS(t)
	runIn(t, ns, `
		ip link set lo up
		ip addr add 10.1.0.2/24 dev a
		ip link set dev a up
		ip link set dev b up
		ip route add 10.2.0.0/16 via 10.1.0.1
	`)
	var a Link
	require.NoError(t, c.Do(GetLink(&a, "a")))
	for to, want := range map[string]Hop{
		"10.1.0.9": {Index: a.Index},
		"10.2.3.4": {Index: a.Index, Gateway: netip.MustParseAddr("10.1.0.1")},
		"10.1.0.2": {Index: 1, Local: true},
	} {
		var got Hop
		require.NoError(t, c.Do(LookUpRoute(&got, netip.MustParseAddr(to))), to)
		assert.Equal(t, want, got, to)
	}
	var got Hop
	require.ErrorIs(t, c.Do(LookUpRoute(&got, netip.MustParseAddr("192.0.2.1"))), unix.ENETUNREACH)
}

func TestIntegrationQdiscs(t *testing.T) {
	ns, c := podNS(t)
	runIn(t, ns, "ip link set dev a up\ntc qdisc add dev a root handle 1: tbf rate 1mbit burst 2000 limit 3000\n")
	var a Link
	require.NoError(t, c.Do(GetLink(&a, "a")))
	var qs []Qdisc
	require.NoError(t, c.Do(GetQdiscs(&qs)))
	found := false
	for _, q := range qs {
		if q.Index == a.Index && q.Kind == kindTBF {
			found = true
			assert.Equal(t, uint32(1<<16), q.Handle)
			assert.Equal(t, uint32(0xffffffff), q.Parent)
		}
	}
	assert.True(t, found, "%+v", qs)
	n := map[string]int{}
	require.NoError(t, c.Do(GetFilters(n, a.Index, FiltersIn)))
	assert.Empty(t, n)
}

func TestParseQdisc(t *testing.T) {
	order := nl.NativeEndian()
	basic := make([]byte, 16)
	order.PutUint64(basic, 9000)
	order.PutUint32(basic[8:], 7)
	queue := make([]byte, 20)
	for i, v := range []uint32{2, 3000, 5, 1, 4} {
		order.PutUint32(queue[4*i:], v)
	}
	packets := make([]byte, 8)
	order.PutUint64(packets, 1<<33)
	stats := nl.NewRtAttr(nl.TCA_STATS2, nil)
	stats.AddRtAttr(nl.TCA_STATS_BASIC, basic)
	stats.AddRtAttr(nl.TCA_STATS_QUEUE, queue)
	head := (&nl.TcMsg{Ifindex: 3, Handle: 0x10000, Parent: 0xffffffff}).Serialize()
	b := append(head, stats.Serialize()...)
	q, err := parseQdisc(b)
	require.NoError(t, err)
	assert.Equal(t, Qdisc{
		Index: 3, Handle: 0x10000, Parent: 0xffffffff, Bytes: 9000, Packets: 7,
		Waiting: 2, Backlog: 3000, Drops: 5, Requeues: 1, Overlimits: 4,
	}, q)
	q.stats(nl.TCA_STATS_PKT64, packets)
	assert.Equal(t, uint64(1<<33), q.Packets)
	_, err = parseQdisc(b[:10])
	require.Error(t, err)
	_, err = parsePathLink(nil)
	require.Error(t, err)
}
