package guestside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
}

// lab is a VM's first namespace with an agent, and a host's namespace, to
// which the other ends of stand-ins for vNICs go.
type lab struct {
	*Agent
	t        *testing.T
	home     *netnsx.NS
	host     *netnsx.NS
	returned chan vnic.ID
	back     chan vnic.ID // handed back
}

func newLab(t *testing.T) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{t: t, home: newNS(t), host: newNS(t), returned: make(chan vnic.ID, 10), back: make(chan vnic.ID, 10)}
	l.start()
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l
}

func (l *lab) start() {
	l.t.Helper()
	require.NoError(l.t, l.home.Do(func() (err error) {
		l.Agent, err = New(Config{
			OnReturned:   func(id vnic.ID, _ vnic.MAC) { l.returned <- id },
			OnHandedBack: func(id vnic.ID, _ vnic.MAC) { l.back <- id },
			// Short, since some tests run into them.
			SearchAfter: 50 * time.Millisecond, CarrierWait: 50 * time.Millisecond, ReturnWait: 50 * time.Millisecond,
		}, "veth")
		return err
	}))
}

// restart ends the agent and starts another.
func (l *lab) restart() {
	l.t.Helper()
	require.NoError(l.t, l.Close())
	l.start()
}

func newNS(t *testing.T) *netnsx.NS {
	t.Helper()
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return ns
}

// ref names a namespace of the test by a path.
func ref(ns *netnsx.NS) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())
}

// plug makes a stand-in for a vNIC: one end of a veth pair in the first
// namespace. The other is in the host's, up, under the order's LinkName.
func (l *lab) plug(m vnic.Move, name string) {
	l.t.Helper()
	in(l.t, l.home, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = name, m.MAC.HardwareAddr()
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: m.ID.LinkName(), PeerNamespace: netlink.NsFd(l.host.FD())})
	})
	in(l.t, l.host, func() error { return setUp(m.ID.LinkName()) })
}

// park makes a stand-in for a vNIC as a pool has it: the agent has seen it when it
// was new.
func (l *lab) park(m vnic.Move) {
	l.t.Helper()
	l.plug(m, m.ID.TapName()+"x")
	m.Netns, m.Interface = "", ""
	l.retrieve(m)
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// order returns an order for a new vNIC.
func order(pod *netnsx.NS, addrs ...string) vnic.Move {
	m := vnic.Move{ID: vnic.NewID(), MAC: vnic.NewMAC(), Interface: "eth0", Queues: 1, Netns: ref(pod)}
	for _, a := range addrs {
		m.Addresses = append(m.Addresses, netip.MustParsePrefix(a))
	}
	return m
}

func in(t *testing.T, ns *netnsx.NS, fn func() error) {
	t.Helper()
	require.NoError(t, ns.Do(fn))
}

// show returns a namespace's links but lo as text: "eth0 up mtu 1500: addresses;
// routes". Names are sorted.
func show(t *testing.T, ns *netnsx.NS) string {
	t.Helper()
	var links []rtnl.Link
	var addrs []rtnl.Addr
	var routes []rtnl.Route
	require.NoError(t, within(ns, func(c *rtnl.Conn) error {
		return errors.Join(c.Do(rtnl.GetLinks(&links)), c.Do(rtnl.GetAddrs(&addrs)), c.Do(rtnl.GetRoutes(&routes)))
	}))
	var lines []string
	for _, l := range links {
		if l.Name == "lo" {
			continue
		}
		line := l.Name + " down"
		if l.Up {
			line = l.Name + " up"
		}
		if l.MTU != 1500 {
			line += " mtu " + strconv.Itoa(l.MTU)
		}
		var parts []string
		for _, p := range prefixes(addrs, l.Index) {
			parts = append(parts, p.String())
		}
		for _, r := range routes {
			if r.Index == l.Index && r.Static {
				parts = append(parts, r.Destination.String()+" via "+r.Gateway.String())
			}
		}
		slices.Sort(parts)
		lines = append(lines, strings.TrimSpace(line+" "+strings.Join(parts, ", ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// links returns the links of a namespace by name.
func linksOf(t *testing.T, ns *netnsx.NS) map[string]rtnl.Link {
	t.Helper()
	var all []rtnl.Link
	require.NoError(t, within(ns, func(c *rtnl.Conn) error { return c.Do(rtnl.GetLinks(&all)) }))
	m := map[string]rtnl.Link{}
	for _, l := range all {
		m[l.Name] = l
	}
	return m
}

// attach moves and configures a vNIC.
func (l *lab) attach(m vnic.Move) vnic.NIC {
	l.t.Helper()
	ctx := l.deadline()
	_, _, err := l.Move(ctx, m)
	require.NoError(l.t, err)
	nic, err := l.Configure(ctx, m)
	require.NoError(l.t, err)
	return nic
}

// awaitWaiter returns when a call waits for that vNIC to appear.
func (l *lab) awaitWaiter(mac vnic.MAC) {
	l.t.Helper()
	require.Eventually(l.t, func() bool {
		l.links.mu.Lock()
		defer l.links.mu.Unlock()
		return l.links.waiters[mac] != nil
	}, 5*time.Second, time.Millisecond, "no call waits for vnic %s", mac)
}

// retrieve takes a vNIC back.
func (l *lab) retrieve(m vnic.Move) {
	l.t.Helper()
	_, err := l.Retrieve(l.deadline(), m)
	require.NoError(l.t, err)
}

func (l *lab) deadline() context.Context {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	l.t.Cleanup(cancel)
	return ctx
}

// exchange connects from one namespace to a server in another.
func exchange(t *testing.T, from, to *netnsx.NS, addr netip.Addr) {
	t.Helper()
	var ln net.Listener
	in(t, to, func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	defer ln.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, err = conn.Write([]byte("hello"))
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	buf := make([]byte, 5)
	in(t, from, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		_, err = conn.Read(buf)
		return errors.Join(err, conn.Close())
	})
	require.NoError(t, <-served)
	assert.Equal(t, "hello", string(buf))
}
