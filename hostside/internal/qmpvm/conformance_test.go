package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend/backendtest"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationConformance runs the tests that every backend passes on a real
// QEMU with a real guest, which releases devices and powers their slots off.
func TestIntegrationConformance(t *testing.T) {
	g := newGuest(t)
	backendtest.Conformance(t, backendtest.Harness{Start: g.start})
}

// guest is one guest that the tests share; it is booted again when killed.
type guest struct {
	vm     *vmlab.VM
	taps   taps
	killed bool
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	n := newTaps(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	initrd, err := lab.Build(ctx, filepath.Join(dir, "initrd"), vmlab.Image{})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	return &guest{vm: vm, taps: n}
}

func (g *guest) start(t *testing.T) backendtest.Machine {
	t.Helper()
	if g.killed {
		require.NoError(t, g.vm.Restart(t.Context()))
		g.killed = false
	}
	v := g.dial(t)
	t.Cleanup(func() { g.clear(t, v) })
	return backendtest.Machine{
		VM: v, Files: g.files,
		Eject: func(id vnic.ID) { g.eject(t, v, id) },
		Kill: func() {
			g.killed = true
			g.vm.Kill()
		},
	}
}

func (g *guest) dial(t *testing.T) *VM {
	t.Helper()
	v, err := Dial(t.Context(), g.vm.Ref(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return v
}

// clear removes what a test left, over a connection of its own: the test may
// have ended its one.
func (g *guest) clear(t *testing.T, v *VM) {
	t.Helper()
	require.NoError(t, v.Close())
	if g.killed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	v, err := Dial(ctx, g.vm.Ref(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer v.Close()
	list, err := v.List(ctx)
	require.NoError(t, err)
	errs := make(chan error, len(list))
	for _, d := range list {
		go func() { errs <- v.Unplug(ctx, d.ID) }()
	}
	for range list {
		require.NoError(t, <-errs)
	}
}

func (g *guest) files(t *testing.T, tap string, queues int) []*os.File {
	t.Helper()
	var files []*os.File
	require.NoError(t, g.taps.ns.Do(func() error {
		for range queues {
			f, err := openTap(tap, queues)
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		return nil
	}))
	t.Cleanup(func() {
		for _, f := range files {
			assert.NoError(t, f.Close())
		}
	})
	return files
}

// eject powers the slot of a vNIC off from inside of the guest.
func (g *guest) eject(t *testing.T, v *VM, id vnic.ID) {
	t.Helper()
	d, ok := v.nics.get(id)
	require.True(t, ok)
	const script = `
pci=
until [ "$pci" ]; do
	for n in /sys/class/net/*; do
		[ "$(cat $n/address)" = %s ] && pci=$(basename $(readlink -f $n/device/..))
	done
	[ "$pci" ] || sleep 0.05
done
for s in /sys/bus/pci/slots/*; do
	[ "$(cat $s/address)" = "${pci%%.*}" ] && exec echo 0 >$s/power
done
echo no slot of $pci >&2
exit 1`
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res, err := g.vm.Shell(ctx, fmt.Sprintf(script, d.mac))
	require.NoError(t, err)
	require.NoError(t, res.Err())
}
