package guard_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationConnectionsFollowTargets(t *testing.T) {
	for _, tt := range []struct{ name, addr, before, after, stays string }{
		{"ipv4", "192.0.2.1:8080", "a", "remote", "b"},
		{"ipv6", "[2001:db8::1]:8080", "a6", "remote6", "b6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			to := func(name string) guard.Change {
				return c.set(t, service(vnic.UDP, 8080, name), service(vnic.UDP, 8081, tt.stays), service(vnic.TCP, 8080, name))
			}
			sink := c.listen(t, tt.addr)
			udp := c.dial(t, "udp", tt.addr)
			_, err := udp.Write([]byte("tracked"))
			require.NoError(t, err)
			require.Equal(t, "tracked", sink())

			assert.Equal(t, 1, c.forget(t, to(tt.before)), "of before there was a service")
			assert.Contains(t, talk(t, udp), "a to ")
			steady := c.dial(t, "udp", strings.Replace(tt.addr, ":8080", ":8081", 1))
			assert.Contains(t, talk(t, steady), "b to ")

			change := to(tt.after)
			assert.Contains(t, talk(t, udp), "a to ", "what is established stays")
			assert.Contains(t, ask(t, c.world, "udp", tt.addr), "remote to ", "what is new doesn't")
			assert.Equal(t, 1, c.forget(t, change))
			assert.Contains(t, talk(t, udp), "remote to ")
			assert.Contains(t, talk(t, steady), "b to ")
			change = to(tt.after)
			assert.Empty(t, change.Families(), "nothing has changed")
			assert.Zero(t, c.forget(t, change))

			assert.Positive(t, c.forget(t, c.set(t)))
			_, err = udp.Write([]byte("to nobody"))
			require.NoError(t, err)
			assert.Equal(t, "to nobody", sink())
			assert.Equal(t, "nobody", ask(t, c.world, "tcp", tt.addr))
		})
	}
}

// A pod that moves to another host keeps its address, and answers past this one from
// then on.
func TestIntegrationConnectionsOfTargetsThatMoveEnd(t *testing.T) {
	c := newCluster(t)
	here := service(vnic.UDP, 8080, "remote")
	here.Targets[0].Local = true
	c.remote.Run("ip", "route", "add", "default", "via", "10.9.0.1")
	c.set(t, here)
	udp := c.dial(t, "udp", "192.0.2.1:8080")
	assert.Equal(t, "remote to 192.0.2.2", talk(t, udp))
	assert.Equal(t, 1, c.forget(t, c.set(t, service(vnic.UDP, 8080, "remote"))))
	assert.Equal(t, "remote to "+own4, talk(t, udp))
}

// forget is what the caller of SetServices does with a Change.
func (c *cluster) forget(t *testing.T, change guard.Change) (forgotten int) {
	t.Helper()
	var ct *rtnl.Conntrack
	c.host.In(func() (err error) {
		ct, err = rtnl.NewConntrack()
		return err
	})
	defer ct.Close()
	stale := change.Stale([]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")})
	for _, v6 := range change.Families() {
		n, err := ct.Forget(v6, stale)
		require.NoError(t, err)
		forgotten += n
	}
	return forgotten
}

// listen takes a port of the host, and returns what waits for a packet there.
func (c *cluster) listen(t *testing.T, addr string) func() string {
	t.Helper()
	var l net.PacketConn
	c.host.In(func() (err error) {
		l, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", addr)
		return err
	})
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return func() string {
		buf := make([]byte, 64)
		require.NoError(t, l.SetDeadline(time.Now().Add(3*time.Second)))
		n, _, err := l.ReadFrom(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
}
