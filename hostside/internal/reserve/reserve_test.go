package reserve_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/reserve"
	"github.com/brfuse/brfuse/vnic"
)

func newPorts(t *testing.T) (*reserve.Ports, *netnstest.NS, *bytes.Buffer) {
	t.Helper()
	ns, log := netnstest.New(t), &bytes.Buffer{}
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
	ports := reserve.New(slog.New(slog.NewTextHandler(log, nil)), func(_ context.Context, f func() error) error { return ns.Do(f) })
	t.Cleanup(ports.Close)
	return ports, ns, log
}

func port(protocol, address string) reserve.Port {
	return reserve.Port{Protocol: protocol, Address: netip.MustParseAddrPort(address)}
}

func keep(t *testing.T, p *reserve.Ports, owner string, want ...reserve.Port) {
	t.Helper()
	commit, _, err := p.Set(t.Context(), owner, want, nil)
	require.NoError(t, err)
	commit()
}

func listen(ns *netnstest.NS, network, address string) (func() error, error) {
	var closer interface{ Close() error }
	err := ns.Do(func() (err error) {
		if network[0] == 'u' {
			closer, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, address)
		} else {
			closer, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return closer.Close, nil
}

func free(t *testing.T, ns *netnstest.NS, network, address string) {
	t.Helper()
	done, err := listen(ns, network, address)
	require.NoError(t, err, "%s %s is free", network, address)
	require.NoError(t, done())
}

func TestIntegrationKeptPortsAreTaken(t *testing.T) {
	p, ns, _ := newPorts(t)
	keep(t, p, "a", port("tcp", "0.0.0.0:80"), port("udp", "0.0.0.0:80"), port("tcp", "[::]:81"), port("tcp", "192.0.2.1:82"), port("sctp", "0.0.0.0:80"))
	for _, tt := range []struct {
		network, address string
		free             bool
	}{
		{"tcp4", "0.0.0.0:80", false},
		{"tcp4", "192.0.2.1:80", false},
		{"tcp4", "127.0.0.1:80", false},
		{"udp4", "0.0.0.0:80", false},
		{"udp4", "192.0.2.1:80", false},
		{"tcp6", "[::1]:80", true},
		{"tcp", ":81", false},
		{"tcp4", "0.0.0.0:81", true},
		{"tcp4", "192.0.2.1:82", false},
		{"tcp4", "127.0.0.1:82", true},
		{"udp4", "192.0.2.1:82", true},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			done, err := listen(ns, tt.network, tt.address)
			if err == nil {
				require.NoError(t, done())
			}
			assert.Equal(t, tt.free, err == nil, "%v", err)
		})
	}
	p.Release("a")
	free(t, ns, "tcp4", "0.0.0.0:80")
	free(t, ns, "udp4", "0.0.0.0:80")
	free(t, ns, "tcp4", "192.0.2.1:82")
}

func TestIntegrationTakenPortsAreTold(t *testing.T) {
	p, ns, log := newPorts(t)
	for _, l := range [][2]string{{"tcp4", "127.0.0.1:80"}, {"udp4", "192.0.2.1:80"}} {
		done, err := listen(ns, l[0], l[1])
		require.NoError(t, err)
		defer func() { require.NoError(t, done()) }()
	}
	keep(t, p, "other", port("tcp", "192.0.2.1:83"))
	keep(t, p, "a", port("tcp", "0.0.0.0:84"))
	for _, tt := range []struct {
		name string
		port reserve.Port
		want error
		text string
	}{
		{"tcp", port("tcp", "0.0.0.0:80"), vnic.ErrPortTaken, "port 0.0.0.0:80/tcp is another program's; choose another, or see whose by `ss -lntup sport = :80`: port of the hypervisor taken"},
		{"udp", port("udp", "192.0.2.1:80"), vnic.ErrPortTaken, "192.0.2.1:80/udp"},
		{"another owner's", port("tcp", "192.0.2.1:83"), vnic.ErrPortTaken, "is published for other"},
		{"on all addresses, another owner's on one", port("tcp", "0.0.0.0:83"), vnic.ErrPortTaken, "is published for other"},
		{"address of nobody", port("tcp", "198.51.100.77:80"), vnic.ErrInvalid, "the hypervisor has no address 198.51.100.77"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fresh := port("tcp", "0.0.0.0:90")
			_, _, err := p.Set(t.Context(), "a", []reserve.Port{fresh, tt.port}, nil)
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, tt.text)
			free(t, ns, "tcp4", "0.0.0.0:90")
			_, err = listen(ns, "tcp4", "0.0.0.0:84")
			require.Error(t, err, "what it had, it has")
		})
	}
	assert.Empty(t, log.String())
}

// A server that ended keeps its port in TIME_WAIT for a minute.
func TestIntegrationTimeWaitIsNoTaker(t *testing.T) {
	p, ns, _ := newPorts(t)
	var l net.Listener
	var c net.Conn
	ns.In(func() (err error) {
		if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "192.0.2.1:80"); err != nil {
			return err
		}
		c, err = (&net.Dialer{}).DialContext(t.Context(), "tcp4", "192.0.2.1:80")
		return err
	})
	s, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, s.Close()) // first, so that it waits
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
	keep(t, p, "a", port("tcp", "0.0.0.0:80"))
	_, err = listen(ns, "tcp4", "192.0.2.1:80")
	require.Error(t, err)
}

func TestIntegrationChangesOfPorts(t *testing.T) {
	p, ns, _ := newPorts(t)
	all, one := port("tcp", "0.0.0.0:80"), port("tcp", "192.0.2.1:80")
	keep(t, p, "a", all, port("tcp", "0.0.0.0:81"))

	_, cancel, err := p.Set(t.Context(), "a", []reserve.Port{one, port("tcp", "0.0.0.0:82")}, nil)
	require.NoError(t, err, "its own are not in the way")
	cancel()
	_, err = listen(ns, "tcp4", "127.0.0.1:80")
	require.Error(t, err, "as before")
	_, err = listen(ns, "tcp4", "127.0.0.1:81")
	require.Error(t, err, "as before")
	free(t, ns, "tcp4", "127.0.0.1:82")

	commit, _, err := p.Set(t.Context(), "a", []reserve.Port{one}, nil)
	require.NoError(t, err)
	_, err = listen(ns, "tcp4", "127.0.0.1:81")
	require.Error(t, err, "kept until the change is made")
	commit()
	free(t, ns, "tcp4", "127.0.0.1:80")
	free(t, ns, "tcp4", "127.0.0.1:81")
	_, err = listen(ns, "tcp4", "192.0.2.1:80")
	require.Error(t, err)

	keep(t, p, "a")
	free(t, ns, "tcp4", "0.0.0.0:80")
}

// What is in force is not taken back because someone was faster while the daemon
// was down; it is kept as soon as it can be.
func TestIntegrationPortsInForceThatSomeoneTook(t *testing.T) {
	p, ns, log := newPorts(t)
	done, err := listen(ns, "tcp4", "0.0.0.0:80")
	require.NoError(t, err)
	want := []reserve.Port{port("tcp", "0.0.0.0:80")}
	commit, _, err := p.Set(t.Context(), "a", want, want)
	require.NoError(t, err)
	commit()
	assert.Contains(t, log.String(), "port 0.0.0.0:80/tcp")
	_, _, err = p.Set(t.Context(), "b", want, nil)
	require.ErrorContains(t, err, "is published for a")

	require.NoError(t, done())
	free(t, ns, "tcp4", "0.0.0.0:80")
	keep(t, p, "a", want...)
	_, err = listen(ns, "tcp4", "0.0.0.0:80")
	require.Error(t, err)
}

// What nobody reads must not pile up, and no descriptor may be left.
func TestIntegrationKeptPortsCostNothing(t *testing.T) {
	p, ns, _ := newPorts(t)
	before := descriptors(t)
	keep(t, p, "a", port("udp", "0.0.0.0:80"), port("tcp", "0.0.0.0:80"))
	var c net.Conn
	ns.In(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(t.Context(), "udp4", "127.0.0.1:80")
		return err
	})
	for range 10 {
		_, err := c.Write(make([]byte, 1000))
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	assert.Regexp(t, `UNCONN +0 +0 +0\.0\.0\.0:80`, ns.Run("ss", "-lunH"))
	p.Release("a")
	assert.Equal(t, before, descriptors(t))
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}
