package rtnl

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
)

func newMonitor(t *testing.T, ns *netnsx.NS, c *Conn) *Monitor {
	t.Helper()
	var m *Monitor
	require.NoError(t, ns.Do(func() (err error) {
		m, err = NewMonitor(c)
		return err
	}))
	t.Cleanup(func() {
		if err := m.Close(); !errors.Is(err, os.ErrClosed) {
			assert.NoError(t, err)
		}
	})
	return m
}

// next reads updates until one of them has the link as it is wanted.
func next(t *testing.T, m *Monitor, want func(LinkChange) bool) Update {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { _ = m.Close() })
	defer stop.Stop()
	for {
		u, err := m.Next()
		require.NoError(t, err, "the awaited change never came")
		if slices.ContainsFunc(u.Changes, want) {
			return u
		}
	}
}

func TestIntegrationMonitor(t *testing.T) {
	ns, c := podNS(t)
	m := newMonitor(t, ns, c)
	u, err := m.Next()
	require.NoError(t, err)
	assert.True(t, u.Full)
	assert.Len(t, u.Changes, 3, "lo, a and b")

	a, err := c.Link("a")
	require.NoError(t, err)
	require.NoError(t, c.Do(SetLink(a.Index, Change{Name: "c"})))
	u = next(t, m, func(ch LinkChange) bool { return ch.Link.Index == a.Index && ch.Link.Name == "c" })
	assert.False(t, u.Full)

	other, err := netnsx.New()
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, c.Do(SetLink(a.Index, Change{Netns: other.FD()})))
	next(t, m, func(ch LinkChange) bool { return ch.Link.Index == a.Index && ch.Gone })
}

// The kernel drops events when no one reads them. The links must then be told
// anew, and an event that was queued before must not bring a dead one back.
func TestIntegrationMonitorOverrun(t *testing.T) {
	ns, c := podNS(t)
	m := newMonitor(t, ns, c)
	_, err := m.Next()
	require.NoError(t, err)
	require.NoError(t, m.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1)
	}))
	require.NoError(t, err)
	require.NoError(t, ns.Do(func() error {
		var errs error
		for range 30 {
			errs = errors.Join(errs, addPair("x", "y"))
			l, err := netlink.LinkByName("x")
			errs = errors.Join(errs, err, netlink.LinkDel(l))
		}
		return errors.Join(errs, addPair("last", "z"))
	}))
	u, err := m.Next()
	require.NoError(t, err)
	assert.True(t, u.Full)
	var names []string
	for _, ch := range u.Changes {
		names = append(names, ch.Link.Name)
	}
	assert.ElementsMatch(t, []string{"lo", "a", "b", "last", "z"}, names)

	// Nothing stale is behind it.
	last, err := c.Link("last")
	require.NoError(t, err)
	require.NoError(t, c.Do(SetUp(last.Index)))
	u, err = m.Next()
	require.NoError(t, err)
	assert.Equal(t, last.Index, u.Changes[0].Link.Index)
}

func TestIntegrationMonitorClose(t *testing.T) {
	ns, c := podNS(t)
	m := newMonitor(t, ns, c)
	_, err := m.Next()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := m.Next()
		done <- err
	}()
	require.NoError(t, m.Close())
	require.ErrorIs(t, <-done, os.ErrClosed)
}
