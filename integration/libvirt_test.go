package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationDomain: a guest of the lab runs under libvirt too.
func TestIntegrationDomain(t *testing.T) {
	ctx, s := newSite(t, site.Options{Libvirt: true})
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1"})
	require.NoError(t, err)
	assert.Equal(t, "vm1\n", inGuest(ctx, t, vm, "", "hostname"))
	list, err := s.Libvirt().Virsh(ctx, "list", "--name")
	require.NoError(t, err)
	assert.Contains(t, list, "vm1")
}

// TestIntegrationLibvirtdCrash kills libvirtd while the daemon waits at each phase of
// attach and of detach, and at any moment of several at once. The calls wait for the
// next libvirtd and succeed, and no pod loses its vNIC.
func TestIntegrationLibvirtdCrash(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Failpoints: true, Libvirt: true}, "web", "db", "p1", "p2", "p3")
	db := attach(ctx, t, s, "--pod", "db")
	kill := func(t *testing.T, meanwhile func()) {
		t.Helper()
		require.NoError(t, s.Libvirt().Kill(ctx))
		meanwhile()
		require.NoError(t, s.Libvirt().Restart(ctx))
	}
	onlyDB := func(t *testing.T) {
		t.Helper()
		assert.Equal(t, []string{db.ID}, settled(ctx, t, s, vm).Store)
	}
	cycle := func(pod string) error {
		cl, err := s.Client()
		if err != nil {
			return err
		}
		if _, err = cl.Attach(ctx, &brfusev1.AttachRequest{Vm: "vm1", Pod: pod}); err != nil {
			return err
		}
		_, err = cl.Detach(ctx, &brfusev1.DetachRequest{Vm: "vm1", Pod: pod})
		return err
	}
	dir := filepath.Join(s.Dir, "fp")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, point := range []string{"plug.tap", "plug.netdev", "plug.device", "attach.ready", "detach.guest", "unplug.device"} {
		t.Run(point, func(t *testing.T) {
			s.KillDaemon()
			require.NoError(t, s.StartDaemon(ctx, point+"=pause:"+dir))
			require.NoError(t, s.AwaitAgent(ctx, "vm1"))
			done := make(chan error, 1)
			go func() { done <- cycle("web") }()
			awaitPause(ctx, t, filepath.Join(dir, point))
			kill(t, func() { require.NoError(t, os.Remove(filepath.Join(dir, point))) })
			require.NoError(t, <-done)
			onlyDB(t)
		})
	}
	t.Run("at any moment", func(t *testing.T) {
		s.KillDaemon()
		require.NoError(t, s.StartDaemon(ctx))
		require.NoError(t, s.AwaitAgent(ctx, "vm1"))
		done := make(chan error, 3)
		for _, pod := range []string{"p1", "p2", "p3"} {
			go func() {
				var err error
				for range 6 {
					err = errors.Join(err, cycle(pod))
				}
				done <- err
			}()
		}
		for left := 3; left > 0; {
			select {
			case err := <-done:
				if err != nil && domainEnded(ctx, t, s) {
					t.Skip("libvirtd has ended the domain when it came back")
				}
				require.NoError(t, err)
				left--
			case <-time.After(time.Duration(rand.IntN(1500)) * time.Millisecond):
				kill(t, func() {})
			}
		}
		onlyDB(t)
	})
	if domainEnded(ctx, t, s) {
		require.NoError(t, site.Until(ctx, "no attachment of a domain that ended", func(ctx context.Context) (bool, error) {
			list, err := s.List(ctx)
			return len(list) == 0, err
		}))
		return
	}
	run(ctx, t, s, "detach", "--vm", "vm1", "--pod", "db")
	assertNothingLeft(ctx, t, s, vm)
}

// domainEnded tells whether the domain does not run any more. A libvirtd that was
// killed in the middle of something, and can't make sense of a domain when it comes
// back, ends the domain (qemuProcessReconnect in libvirt's src/qemu/qemu_process.c).
func domainEnded(ctx context.Context, t *testing.T, s *site.Site) bool {
	t.Helper()
	state, err := s.Libvirt().Virsh(ctx, "domstate", "vm1")
	require.NoError(t, err)
	if strings.Contains(state, "running") {
		return false
	}
	t.Logf("domain is %s; libvirtd says:\n%s\nof the domain:\n%s", strings.TrimSpace(state), s.Libvirt().Log(), s.Libvirt().DomainLog("vm1"))
	return true
}

// deviceID is what QEMU calls the device of a vNIC.
func deviceID(vm *vmlab.VM, id string) string {
	if vm.Ref().Libvirt != "" {
		return "ua-brf" + id
	}
	return "brf" + id
}
