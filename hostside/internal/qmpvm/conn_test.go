package qmpvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/vnic"
)

// echo answers each command with its name; h comes first and may take it over.
func echo(h func(*qmptest.Client, qmptest.Request) bool) qmptest.Handler {
	return func(c *qmptest.Client, r qmptest.Request) {
		if r.Execute == "qmp_capabilities" {
			c.Return(r, struct{}{})
			return
		}
		if h == nil || !h(c, r) {
			c.Return(r, r.Execute)
		}
	}
}

func dialEcho(t *testing.T, h func(*qmptest.Client, qmptest.Request) bool) *Conn {
	t.Helper()
	c, err := DialConn(t.Context(), qmptest.NewServer(t, echo(h)).Path, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func do(t *testing.T, c *Conn, name string) string {
	t.Helper()
	out, err := c.Do(t.Context(), qmp.Command{Execute: name})
	require.NoError(t, err)
	return string(out)
}

// TestKnownDefects has a case for each thing that go-qemu's own monitor gets wrong.
func TestKnownDefects(t *testing.T) {
	t.Run("replies are the caller's own memory", func(t *testing.T) {
		c := dialEcho(t, nil)
		first := do(t, c, "query-one")
		for range 100 {
			do(t, c, "query-"+strings.Repeat("x", 4000))
		}
		assert.Equal(t, `"query-one"`, first)
	})

	t.Run("unread events hold up neither replies nor the end", func(t *testing.T) {
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			for range 1000 {
				c.Event("STOP", nil)
			}
			return false
		})
		events, err := c.Events(t.Context())
		require.NoError(t, err)
		do(t, c, "stop")
		do(t, c, "query-status")
		require.NoError(t, c.Disconnect())
		n := 0
		for range events {
			n++
		}
		assert.Equal(t, 2000, n, "events that came are delivered, also after the end")
	})

	t.Run("events of the first moment are seen", func(t *testing.T) {
		s := qmptest.NewServer(t, func(c *qmptest.Client, r qmptest.Request) {
			c.Write(fmt.Sprintf(`{"return": {}, "id": %s}`, r.ID) + "\r\n" + qmptest.EventLine("RESUME", nil))
		})
		c, sub, err := dial(t.Context(), s.Path, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer c.Close()
		assert.Equal(t, "RESUME", (<-sub.C()).Event)
		sub.Close()
	})

	t.Run("event channels end with their context, each its own", func(t *testing.T) {
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			c.Event("E", map[string]any{"of": r.Execute})
			return false
		})
		ctx, cancel := context.WithCancel(t.Context())
		one, err := c.Events(ctx)
		require.NoError(t, err)
		two, err := c.Events(t.Context())
		require.NoError(t, err)
		do(t, c, "a")
		assert.Equal(t, "a", (<-one).Data["of"])
		assert.Equal(t, "a", (<-two).Data["of"])
		cancel()
		_, open := <-one
		assert.False(t, open)
		do(t, c, "b")
		assert.Equal(t, "b", (<-two).Data["of"])
	})

	t.Run("long lines", func(t *testing.T) {
		long := strings.Repeat("s", 300_000)
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			c.Return(r, long)
			return true
		})
		assert.Len(t, do(t, c, "query-qmp-schema"), len(long)+2)
	})

	t.Run("replies find the command they belong to", func(t *testing.T) {
		var first *qmptest.Request
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			if first == nil {
				first = &r
				return true
			}
			c.Write(`{"return": "nobody's", "id": 999}` + "\n" + `{"error": {"class": "GenericError", "desc": "lost"}}` + "\n")
			c.Return(r, r.Execute)
			c.Return(*first, first.Execute)
			return true
		})
		one, err := c.Start(t.Context(), qmp.Command{Execute: "one"})
		require.NoError(t, err)
		assert.Equal(t, `"two"`, do(t, c, "two"))
		out, err := one.Wait(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `"one"`, string(out))
	})

	t.Run("two commands in one run are refused", func(t *testing.T) {
		c := dialEcho(t, nil)
		_, err := c.Run([]byte(`{"execute":"query-status"}{"execute":"query-version"}`))
		require.ErrorContains(t, err, "more than one JSON value")
		_, err = c.Run([]byte(`{"execute":"query-st`))
		require.Error(t, err, "a truncated command isn't sent")
		out, err := c.Run([]byte(`{"execute":"query-status", "id": 7}`))
		require.NoError(t, err, "a numeric id does no harm")
		assert.JSONEq(t, `{"return": "query-status"}`, string(out))
	})

	t.Run("a call that is given up does no harm to the next", func(t *testing.T) {
		var held qmptest.Request
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			if r.Execute == "slow" {
				held = r
				return true
			}
			if held.ID != nil {
				c.Return(held, "late")
			}
			return false
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := c.Do(ctx, qmp.Command{Execute: "slow"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "slow: await reply: ")
		assert.Equal(t, `"next"`, do(t, c, "next"))
		assert.Empty(t, c.pending)
	})

	t.Run("error classes are kept", func(t *testing.T) {
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			c.Refuse(r, "DeviceNotFound", "Device 'x' not found")
			return true
		})
		_, err := c.Do(t.Context(), qmp.Command{Execute: "device_del"})
		require.ErrorIs(t, err, ErrDeviceNotFound)
		require.NotErrorIs(t, err, ErrCommandNotFound)
		require.EqualError(t, err, "device_del: Device 'x' not found")
	})

	t.Run("the peer closes during a command", func(t *testing.T) {
		c := dialEcho(t, func(c *qmptest.Client, _ qmptest.Request) bool {
			c.Close()
			return true
		})
		_, err := c.Do(t.Context(), qmp.Command{Execute: "quit"})
		require.ErrorIs(t, err, vnic.ErrVMGone)
		<-c.Done()
		require.ErrorIs(t, c.Connect(), vnic.ErrVMGone)
		_, err = c.Events(t.Context())
		require.ErrorIs(t, err, vnic.ErrVMGone)
	})

	t.Run("no arguments, not null", func(t *testing.T) {
		c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
			c.Return(r, string(r.Args))
			return true
		})
		out, err := c.Do(t.Context(), qmp.Command{Execute: "x", Args: args(nil)})
		require.NoError(t, err)
		assert.Equal(t, `""`, string(out))
	})
}

func TestDescriptorsArriveInOrder(t *testing.T) {
	var mu sync.Mutex
	got := map[string]uint64{}
	c := dialEcho(t, func(c *qmptest.Client, r qmptest.Request) bool {
		var a struct{ FDName string }
		fd := c.TakeFile()
		var st unix.Stat_t
		if err := errors.Join(json.Unmarshal(r.Args, &a), unix.Fstat(fd, &st), unix.Close(fd)); err != nil {
			c.Refuse(r, "GenericError", "%s", err)
			return true
		}
		mu.Lock()
		defer mu.Unlock()
		got[a.FDName] = st.Ino
		return false
	})
	want := map[string]uint64{}
	var wg sync.WaitGroup
	for i := range 20 {
		f, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(int(f.Fd()), &st))
		name := fmt.Sprint(i)
		want[name] = st.Ino
		wg.Go(func() {
			call, err := c.Start(t.Context(), qmp.Command{Execute: "getfd", Args: args{"fdname": name}}, f)
			assert.NoError(t, f.Close(), "Start has a copy")
			if assert.NoError(t, err) {
				_, err = call.Wait(t.Context())
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, want, got)
}

func TestBadPeers(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"hangs up", "", "read greeting: EOF"},
		{"speaks HTTP", "HTTP/1.0 400 Bad Request\r\n", "read greeting: decode message"},
		{"no greeting", `{"return": {}}` + "\n", "not a QMP server"},
		{"endless line", strings.Repeat(" ", maxLine+1) + "\n", "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, there := net.Pipe()
			go func() {
				_, _ = there.Write([]byte(c.text))
				_ = there.Close()
			}()
			_, _, err := open(t.Context(), here, "/run/s", slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, c.says)
		})
	}
}

// pipeVM returns a VM whose machine sits behind a pipe, for bubbles of synctest.
func pipeVM(t *testing.T, m *qmptest.Machine) *VM {
	t.Helper()
	here, there := net.Pipe()
	go qmptest.Serve(there, m.Handle)
	log := slog.New(slog.DiscardHandler)
	conn, sub, err := open(t.Context(), here, "/run/s", log)
	require.NoError(t, err)
	v, err := newVM(t.Context(), "vm1", conn, sub, log)
	require.NoError(t, err)
	return v
}

func TestUnplugAsksABusyGuestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := qmptest.NewMachine(3, 0)
		m.Put(idA.DeviceID(), "br0", 1, macA, idA.NetdevID())
		m.SetGuest(qmptest.Prompt, 6)
		v := pipeVM(t, m)
		start := time.Now()
		require.NoError(t, v.Unplug(t.Context(), idA))
		assert.Equal(t, (100+200+400+800+1600+2000)*time.Millisecond, time.Since(start), "doubling, up to 2 s")
		assert.Empty(t, m.String())
		require.NoError(t, v.Close())
	})
}

func TestUnplugAsksASilentGuestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := qmptest.NewMachine(3, 0)
		m.Put(idA.DeviceID(), "br0", 1, macA, idA.NetdevID())
		m.SetGuest(qmptest.Silent, 0)
		v := pipeVM(t, m)
		time.AfterFunc(25*time.Second, func() { m.Eject(idA.DeviceID()) })
		require.NoError(t, v.Unplug(t.Context(), idA))
		assert.Equal(t, []string{"device_del", "device_del", "device_del", "netdev_del"}, m.Commands())
		require.NoError(t, v.Close())
	})
}
