package rtnl

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// podNS returns a new namespace with a veth pair a-b in it, and a connection.
func podNS(t *testing.T) (*netnsx.NS, *Conn) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	var c *Conn
	require.NoError(t, ns.Do(func() (err error) {
		if c, err = Dial(); err != nil {
			return err
		}
		return addPair("a", "b")
	}))
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return ns, c
}

func addPair(name, peer string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, vnic.NewMAC().HardwareAddr()
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer})
}

func TestIntegrationConnDo(t *testing.T) {
	_, c := podNS(t)
	a, err := c.Link("a")
	require.NoError(t, err)
	p4, p6 := netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")

	// One message: changes, a query in their midst, and one at the end.
	var between, after Link
	require.NoError(t, c.Do(
		NoAutoAddress(a.Index), SetAddr(a.Index, p4), SetAddr(a.Index, p6),
		GetLink(&between, "a"), SetUp(a.Index), GetLinkIndex(&after, a.Index),
	))
	assert.False(t, between.Up)
	assert.True(t, after.Up)

	// A dump needs several rounds, which must not hide the end of the others.
	var addrs []Addr
	require.NoError(t, c.Do(GetAddrs(&addrs), SetDown(a.Index), GetLink(&after, "a")))
	assert.Subset(t, addrs, []Addr{{a.Index, p4}, {a.Index, p6}})
	assert.False(t, after.Up)
	require.NoError(t, c.Do(GetLink(&after, "a"), GetAddrs(&addrs)))

	require.NoError(t, c.Do())
}

// What a pod has done to its vNIC may take very many requests to undo.
func TestIntegrationConnDoMany(t *testing.T) {
	_, c := podNS(t)
	a, err := c.Link("a")
	require.NoError(t, err)
	var set, del []Request
	for i := range 6000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)
		set, del = append(set, SetAddr(a.Index, p)), append(del, DelAddr(a.Index, p))
	}
	require.NoError(t, c.Do(set...))
	var addrs []Addr
	require.NoError(t, c.Do(append(del, GetAddrs(&addrs))...))
	assert.Empty(t, addrs)
	err = c.Do(append(del, SetUp(a.Index))...)
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	require.ErrorContains(t, err, "take address 10.1.0.0/32", "the first of many errors")
	a, err = c.Link("a")
	require.NoError(t, err)
	assert.True(t, a.Up, "what is behind those that fail is done")
}

func TestIntegrationConnErrors(t *testing.T) {
	_, c := podNS(t)
	a, err := c.Link("a")
	require.NoError(t, err)
	p := netip.MustParsePrefix("10.1.0.2/24")

	// The first error counts, and what follows is carried out.
	err = c.Do(DelAddr(a.Index, p), SetUp(4711), SetAddr(a.Index, p), SetUp(a.Index))
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	require.ErrorContains(t, err, "take address 10.1.0.2/24: cannot assign requested address")
	after, err := c.LinkIndex(a.Index)
	require.NoError(t, err)
	assert.True(t, after.Up)

	require.NoError(t, c.Do(SetUp(4711).Tolerate(unix.ENODEV), SetUp(a.Index)))
	require.ErrorIs(t, c.Do(SetUp(a.Index), SetUp(4711)), unix.ENODEV)

	err = c.Do(SetLink(a.Index, Change{MTU: 70000}))
	require.ErrorContains(t, err, "mtu 70000: invalid argument (mtu greater than device maximum)", "the kernel's own words")
	_, err = c.Link("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "look up link none")
}

func TestIntegrationRoutesAndNeighbours(t *testing.T) {
	ns, c := podNS(t)
	a, err := c.Link("a")
	require.NoError(t, err)
	b, err := c.Link("b")
	require.NoError(t, err)
	require.NoError(t, c.Do(SetAddr(a.Index, netip.MustParsePrefix("10.1.0.2/24")), SetAddr(a.Index, netip.MustParsePrefix("fd00::2/64")),
		SetUp(a.Index), SetUp(b.Index)))
	tests := []struct {
		name         string
		dst, gateway string
		onLink       bool
	}{
		{"default", "0.0.0.0/0", "10.1.0.1", false},
		{"on-link gateway", "10.2.0.0/16", "192.0.2.1", true},
		{"on-link", "10.3.0.0/16", "", false},
		{"default of ipv6", "::/0", "fd00::1", false},
		{"on-link gateway of ipv6", "fd02::/64", "fd99::1", true},
		{"on-link of ipv6", "fd03::/64", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Route{Index: a.Index, Static: true, OnLink: tt.onLink}
			r.Destination = netip.MustParsePrefix(tt.dst)
			if tt.gateway != "" {
				r.Gateway = netip.MustParseAddr(tt.gateway)
			}
			var routes []Route
			require.NoError(t, c.Do(AddRoute(r)))
			require.ErrorIs(t, c.Do(AddRoute(r)), unix.EEXIST)
			require.NoError(t, c.Do(GetRoutes(&routes)))
			assert.Contains(t, routes, r)
			require.NoError(t, c.Do(DelRoute(r)))
			require.ErrorIs(t, c.Do(DelRoute(r)), unix.ESRCH)
			require.NoError(t, c.Do(GetRoutes(&routes)))
			assert.NotContains(t, routes, r)
		})
	}

	mac := vnic.NewMAC()
	for _, ip := range []string{"10.1.0.9", "fd00::9"} {
		require.NoError(t, c.Do(SetNeighbour(a.Index, netip.MustParseAddr(ip), mac)))
	}
	require.NoError(t, ns.Do(func() error {
		list, err := netlink.NeighList(a.Index, netlink.FAMILY_ALL)
		var got []string
		for _, n := range list {
			if n.State == netlink.NUD_PERMANENT {
				got = append(got, n.IP.String()+" "+n.HardwareAddr.String())
			}
		}
		assert.ElementsMatch(t, []string{"10.1.0.9 " + mac.String(), "fd00::9 " + mac.String()}, got)
		return err
	}))
	require.NoError(t, c.Do(DelNeighbour(a.Index, netip.MustParseAddr("10.1.0.9"))))
}

func TestIntegrationConfirmNeighbours(t *testing.T) {
	ns, c := podNS(t)
	a, err := c.Link("a")
	require.NoError(t, err)
	b, err := c.Link("b")
	require.NoError(t, err)
	require.NoError(t, c.Do(SetUp(a.Index), SetUp(b.Index), SetNeighbour(a.Index, netip.MustParseAddr("10.1.0.1"), vnic.NewMAC())))
	require.NoError(t, ns.Do(func() error {
		add := func(ip string, state int, mac net.HardwareAddr) error {
			return netlink.NeighAdd(&netlink.Neigh{LinkIndex: a.Index, State: state, IP: net.ParseIP(ip), HardwareAddr: mac})
		}
		mac := vnic.NewMAC()
		h, err := New()
		if err != nil {
			return err
		}
		defer h.Close()
		if err := errors.Join(
			add("10.1.0.2", netlink.NUD_STALE, mac[:]), add("fd00::2", netlink.NUD_STALE, mac[:]), h.ConfirmNeighbours(),
		); err != nil {
			return err
		}
		list, err := netlink.NeighList(a.Index, netlink.FAMILY_ALL)
		got := map[string]int{}
		for _, n := range list {
			if n.State != netlink.NUD_NOARP { // multicast
				got[n.IP.String()] = n.State
			}
		}
		assert.Equal(t, map[string]int{
			"10.1.0.1": netlink.NUD_PERMANENT, "10.1.0.2": netlink.NUD_REACHABLE, "fd00::2": netlink.NUD_REACHABLE,
		}, got)
		return err
	}))
}

// More links than one datagram holds.
func TestIntegrationManyLinks(t *testing.T) {
	ns, c := podNS(t)
	const n = 60
	require.NoError(t, ns.Do(func() error {
		var errs error
		for i := range n {
			errs = errors.Join(errs, addPair("x"+string(rune('A'+i)), "y"+string(rune('A'+i))))
		}
		return errs
	}))
	all, err := c.Links()
	require.NoError(t, err)
	assert.Len(t, all, 3+2*n)
}

func TestIntegrationDriver(t *testing.T) {
	_, c := podNS(t)
	driver, bus, err := c.Driver("a")
	require.NoError(t, err)
	assert.Equal(t, "veth", driver)
	assert.Empty(t, bus)
	driver, _, err = c.Driver("lo")
	require.NoError(t, err)
	assert.Empty(t, driver)
	_, _, err = c.Driver("none")
	require.ErrorIs(t, err, unix.ENODEV)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestIntegrationSetQueues(t *testing.T) {
	ns, c := podNS(t)
	require.NoError(t, ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "br", 1, 1
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	}))
	_, err := c.SetQueues("br", 2)
	require.ErrorIs(t, err, vnic.ErrUnsupported)
	_, err = c.SetQueues("none", 2)
	require.ErrorIs(t, err, unix.ENODEV)
	_, err = c.SetQueues("a-name-that-is-too-long", 2)
	require.ErrorIs(t, err, unix.ENODEV)
}

func TestParseAck(t *testing.T) {
	echo := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0).Serialize() // what the kernel sends back
	words := nl.NewRtAttr(nl.NLMSGERR_ATTR_MSG, nl.ZeroTerminated("because")).Serialize()
	errno := func(e unix.Errno) []byte { return nl.Uint32Attr(-uint32(e)) }
	cat := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	long := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0)
	long.AddRawData(make([]byte, 20))
	tests := []struct {
		name  string
		flags uint16
		data  []byte
		want  string
	}{
		{"acknowledged", 0, cat(errno(0), echo), ""},
		{"errno", 0, cat(errno(unix.EEXIST), echo), "file exists"},
		{"words", unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED, cat(errno(unix.EEXIST), echo, words), "file exists (because)"},
		{"words behind the request", unix.NLM_F_ACK_TLVS, cat(errno(unix.EEXIST), long.Serialize(), words), "file exists (because)"},
		{"short", 0, []byte{1, 2}, "short acknowledgment of 2 bytes"},
		{"lying length", unix.NLM_F_ACK_TLVS, cat(errno(unix.EEXIST), nl.Uint32Attr(1<<30), make([]byte, 12)), "file exists"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := parseAck(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Flags: tt.flags}, Data: tt.data})
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.want)
		})
	}
}

// What root in a pod makes can't take all of the agent's memory, nor the socket.
func TestTooManyAnswers(t *testing.T) {
	var kept []Route
	r := GetRoutes(&kept)
	x := exchange{first: 1, reqs: []Request{r}, pending: 1}
	answer := func(kind uint16, body []byte) []byte {
		h := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
		nl.NativeEndian().PutUint32(h, uint32(cap(h)))
		nl.NativeEndian().PutUint16(h[4:], kind)
		nl.NativeEndian().PutUint32(h[8:], 1)
		return append(h, body...)
	}
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	one := answer(unix.RTM_NEWROUTE, msg.Serialize())
	many := bytes.Repeat(one, 1<<10)
	for range maxAnswers>>10 + 1 {
		require.NoError(t, x.read(many))
	}
	require.NoError(t, x.read(answer(unix.NLMSG_DONE, make([]byte, 4))))
	assert.Zero(t, x.pending, "it is read to its end")
	require.EqualError(t, x.result(), "list routes: the kernel has more than 262144")
	assert.Len(t, kept, maxAnswers)
}

func TestHasMAC(t *testing.T) {
	one, two := vnic.NewMAC(), vnic.NewMAC()
	tests := []struct {
		name string
		link Link
		want bool
	}{
		{"permanent", Link{MAC: one, Permanent: one}, true},
		{"changed", Link{MAC: two, Permanent: one}, true},
		{"changed to it", Link{MAC: one, Permanent: two}, false},
		{"stand-in", Link{MAC: one, Kind: "veth"}, true},
		{"vlan on it", Link{MAC: one, Kind: "vlan"}, false},
		{"bridge over it", Link{MAC: one, Kind: "bridge"}, false},
		{"ipvlan on it, with its MAC for good", Link{MAC: one, Permanent: one, Kind: "ipvlan"}, false},
		{"other", Link{MAC: two}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, tt.link.HasMAC(one)) })
	}
}

func TestFindMACPrefersTheDeviceMadeWithIt(t *testing.T) {
	mac := vnic.NewMAC()
	made, given := Link{Index: 7, Permanent: mac}, Link{Index: 3, MAC: mac, Kind: "veth"}
	for _, ls := range [][]Link{{given, made}, {made, given}} {
		l, ok := FindMAC(ls, mac)
		assert.True(t, ok)
		assert.Equal(t, made, l)
	}
	l, ok := FindMAC([]Link{{Index: 1}, given}, mac)
	assert.True(t, ok)
	assert.Equal(t, given, l)
	_, ok = FindMAC([]Link{{Index: 1}}, mac)
	assert.False(t, ok)
}

func FuzzParse(f *testing.F) {
	f.Add(nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0).Serialize())
	info := nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize()
	f.Add(append(info, nl.NewRtAttr(unix.IFLA_IFNAME, []byte("eth0")).Serialize()...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		// None may panic, whatever they are given.
		_, _ = parseLink(b)
		_, _ = parseAddr(b)
		_, _, _ = parseRoute(b)
		_, _ = parseUpdate(b)
		_, _ = parsePathLink(b)
		_, _ = parseQdisc(b)
		_ = parseAck(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Flags: unix.NLM_F_ACK_TLVS}, Data: b})
	})
}
