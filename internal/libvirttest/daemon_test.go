package libvirttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const tinyDomain = `<domain type='qemu'>
  <name>tiny</name>
  <uuid>0b0e7d0e-4f0c-4a5e-9c55-6d1f6c1f8f01</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><memballoon model='none'/><controller type='usb' model='none'/></devices>
</domain>`

func start(ctx context.Context, t *testing.T) *Daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		require.Empty(t, os.Getenv("CI"), "CI must run as root")
		t.Skip("needs root")
	}
	d, err := Start(ctx, Options{})
	if errors.Is(err, ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

// TestIntegrationDaemon: a domain outlives its libvirtd, and nothing outlives Close.
func TestIntegrationDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d := start(ctx, t)
	require.NoError(t, d.Define(ctx, tinyDomain))
	require.NoError(t, d.StartDomain(ctx, "tiny"))
	pid, err := d.DomainPID("tiny")
	require.NoError(t, err)
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	require.NoError(t, err)
	assert.Equal(t, "qemu-system-x86\n", string(name))

	require.NoError(t, d.Kill(ctx))
	_, err = d.Virsh(ctx, "list")
	require.Error(t, err, "a killed libvirtd answers")
	require.NoError(t, d.Kill(ctx), "it may be killed again")
	require.NoError(t, d.Restart(ctx))
	list, err := d.Virsh(ctx, "list", "--name")
	require.NoError(t, err)
	assert.Contains(t, list, "tiny")

	require.NoError(t, d.DestroyDomain(ctx, "tiny"))
	_, err = d.DomainPID("tiny")
	require.Error(t, err)
	require.NoError(t, d.StartDomain(ctx, "tiny"))
	pid, err = d.DomainPID("tiny")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	assert.NoFileExists(t, filepath.Join("/proc", strconv.Itoa(pid), "comm"), "QEMU goes on")
	assert.NoDirExists(t, d.dir)
}

// TestIntegrationKeep: a libvirtd that crashes comes back, and so does one that is
// killed while others start it too.
func TestIntegrationKeep(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d := start(ctx, t)
	require.NoError(t, d.Define(ctx, tinyDomain))
	require.NoError(t, d.StartDomain(ctx, "tiny"))
	first, err := d.PID()
	require.NoError(t, err)
	require.NoError(t, d.Restart(ctx))
	same, err := d.PID()
	require.NoError(t, err)
	assert.Equal(t, first, same, "one that runs is started again")

	kept, stop := context.WithCancel(ctx)
	defer stop()
	back, end := make(chan struct{}, 8), make(chan error, 1)
	go func() { end <- d.Keep(kept, func() { back <- struct{}{} }) }()
	require.NoError(t, unix.Kill(first, unix.SIGSEGV))
	select {
	case <-back:
	case <-ctx.Done():
		require.FailNow(t, "libvirtd did not come back")
	}
	second, err := d.PID()
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	for range 3 {
		require.NoError(t, d.Kill(ctx))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { assert.NoError(t, d.Restart(ctx)) })
		}
		wg.Wait()
	}
	list, err := d.Virsh(ctx, "list", "--name")
	require.NoError(t, err)
	assert.Contains(t, list, "tiny")

	stop()
	require.NoError(t, <-end)
	require.NoError(t, d.Kill(ctx))
	_, err = d.Virsh(ctx, "list")
	require.Error(t, err, "Keep goes on")
}
