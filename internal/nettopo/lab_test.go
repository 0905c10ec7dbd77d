package nettopo

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// space is a network namespace of a test, its loopback up.
type space struct {
	*netnsx.NS
	t *testing.T
}

func newSpace(t *testing.T) space {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	s := space{ns, t}
	s.run("ip link set lo up")
	return s
}

// path is a reference to s for [netnsx.Open].
func (s space) path() string { return "/proc/self/fd/" + strconv.Itoa(s.FD()) }

// run runs a command line, split at spaces, in s and returns what it prints.
func (s space) run(line string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 20*time.Second)
	defer cancel()
	f := strings.Fields(line)
	var out []byte
	err := s.Do(func() (err error) {
		out, err = exec.CommandContext(ctx, f[0], f[1:]...).CombinedOutput()
		return err
	})
	require.NoError(s.t, err, "%s: %s", line, out)
	return string(out)
}

// operstate is what the kernel may set a moment later.
var operstate = regexp.MustCompile(` state [A-Z]+`)

// state is what must be as before when a topology is down.
func (s space) state() string {
	s.t.Helper()
	var b strings.Builder
	for _, line := range []string{
		"ip -o link", "ip -4 -o addr", "ip -4 route show table all", "ip rule", "ip neigh show nud permanent", "bridge fdb", "nft list ruleset",
		"sysctl -ar net\\.ipv4\\.(ip_forward|conf)",
	} {
		b.WriteString("# " + line + "\n" + operstate.ReplaceAllString(s.run(line), ""))
	}
	return b.String()
}

// wire makes a veth pair between two namespaces: a link of that name and address in
// each, both up.
func wire(a space, aName, aAddr string, b space, bName, bAddr string) {
	a.t.Helper()
	require.NoError(a.t, in(a.NS, func(c *rtnl.Conn) error {
		return c.Do(rtnl.AddVeth(rtnl.NewLink{Name: aName}, rtnl.NewLink{Name: bName, Netns: b.FD()}))
	}))
	a.run("ip addr add " + aAddr + " dev " + aName)
	b.run("ip addr add " + bAddr + " dev " + bName)
	a.run("ip link set " + aName + " up")
	b.run("ip link set " + bName + " up")
	for ns, name := range map[space]string{a: aName, b: bName} {
		require.NoError(a.t, in(ns.NS, func(c *rtnl.Conn) error { return awaitRunning(a.t.Context(), c, name) }))
	}
}

// echo is a server for TCP and UDP on one port that sends back what it gets. It tells
// who called last.
type echo struct {
	tcp  net.Listener
	udp  net.PacketConn
	done chan struct{}
	peer chan netip.Addr
}

func serve(s space, addr string) *echo {
	s.t.Helper()
	e := &echo{done: make(chan struct{}, 2), peer: make(chan netip.Addr, 16)}
	require.NoError(s.t, s.Do(func() (err error) {
		lc := net.ListenConfig{}
		if e.tcp, err = lc.Listen(s.t.Context(), "tcp", addr); err != nil {
			return err
		}
		e.udp, err = lc.ListenPacket(s.t.Context(), "udp", addr)
		return err
	}))
	go e.serveTCP()
	go e.serveUDP()
	s.t.Cleanup(e.close)
	return e
}

func (e *echo) close() {
	_ = e.tcp.Close()
	_ = e.udp.Close()
	<-e.done
	<-e.done
}

func (e *echo) serveTCP() {
	defer func() { e.done <- struct{}{} }()
	for {
		c, err := e.tcp.Accept()
		if err != nil {
			return
		}
		e.peer <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}
}

func (e *echo) serveUDP() {
	defer func() { e.done <- struct{}{} }()
	b := make([]byte, 64<<10)
	for {
		n, from, err := e.udp.ReadFrom(b)
		if err != nil {
			return
		}
		e.peer <- from.(*net.UDPAddr).AddrPort().Addr().Unmap()
		_, _ = e.udp.WriteTo(b[:n], from)
	}
}

// call sends so many bytes to an echo and reads them again, all in that time.
func call(s space, network, addr string, size int, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), timeout)
	defer cancel()
	var c net.Conn
	err := s.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	sent, got := make([]byte, size), make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(sent) != string(got) {
		return errors.New("other bytes came back")
	}
	return nil
}

// requireReach calls an echo from a namespace by TCP and UDP, at once and without a
// second try, and returns who the server takes the caller for.
func requireReach(from space, e *echo, addr string, sizes ...int) (peer netip.Addr) {
	from.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		for _, size := range append(sizes, 64) {
			require.NoError(from.t, call(from, network, addr, size, 5*time.Second), "%s %s, %d bytes", network, addr, size)
			peer = <-e.peer
		}
	}
	return peer
}

// requireNoReach calls what mustn't answer.
func requireNoReach(from space, network, addr string) {
	from.t.Helper()
	require.Error(from.t, call(from, network, addr, 1, 300*time.Millisecond), "%s %s", network, addr)
}
