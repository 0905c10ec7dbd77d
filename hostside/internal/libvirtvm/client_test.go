package libvirtvm

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// TestCallLimit: a call that libvirtd never answers returns with its context, and
// costs the connection after a while.
func TestCallLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := &client{nc: &watchedConn{Conn: here, lost: make(chan struct{})}, stop: func() {}}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := c.start(func() error {
			_, err := c.nc.Read(make([]byte, 1))
			return err
		})
		require.ErrorIs(t, p.wait(ctx), context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		err := p.wait(t.Context())
		require.Error(t, err)
		assert.Equal(t, callLimit, time.Since(began))
		assert.True(t, c.lost(err))
		c.close()
	})
}

// TestCallAfterClose calls over a connection that is closed: the call is made again over
// the next one.
func TestCallAfterClose(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	c := &client{nc: &watchedConn{Conn: here, lost: make(chan struct{})}, stop: func() {}}
	c.close()
	err := c.call(t.Context(), func() error { return errors.New("called") })
	require.ErrorIs(t, err, net.ErrClosed)
	assert.True(t, c.lost(err))
}

func TestLost(t *testing.T) {
	c := &client{nc: &watchedConn{lost: make(chan struct{})}}
	other := errors.New("other")
	for _, c2 := range []struct {
		name        string
		err         error
		alive, dead bool // lost while the connection is there, and after its end
	}{
		{"none", nil, false, false},
		{"interrupted", libvirt.ErrInterrupted, true, true},
		{"closed", syscall.EINVAL, true, true},
		{"libvirt's", libvirt.Error{Code: 1}, false, false},
		{"context", context.Canceled, false, false},
		{"another", other, false, true},
	} {
		t.Run(c2.name, func(t *testing.T) {
			assert.Equal(t, c2.alive, c.lost(c2.err))
			ended := &client{nc: &watchedConn{lost: make(chan struct{})}}
			close(ended.nc.lost)
			assert.Equal(t, c2.dead, ended.lost(c2.err))
		})
	}
}

// TestIntegrationHang: a libvirtd that hangs holds nobody longer than a context.
func TestIntegrationHang(t *testing.T) {
	s := withoutGuest(t, oneBridge)
	v := s.dial(t)
	pid, err := s.lv.PID()
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	defer unix.Kill(pid, unix.SIGCONT) //nolint:errcheck // it may run already
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	n := s.nic(t, 1)
	_, err = v.List(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, vnic.ErrVMGone)

	// A plug that was given up is undone, once libvirtd goes on.
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := v.Plug(ctx, n)
		result <- err
	}()
	<-ctx.Done()
	timer := time.NewTimer(500 * time.Millisecond) // the plug's time is over by then
	<-timer.C
	require.NoError(t, unix.Kill(pid, unix.SIGCONT))
	// A reset does the guest's part, when it comes after what the undoing asks for.
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for err = nil; err == nil; {
		_, rerr := s.lv.Virsh(t.Context(), "reset", "vm1")
		require.NoError(t, rerr)
		select {
		case err = <-result:
			require.ErrorIs(t, err, context.DeadlineExceeded)
		case <-again.C:
		}
	}
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
}
