package integration

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// limit bounds each test, in its context.
const limit = 25 * time.Minute

// openLab returns the lab, and skips the test where that can't be had.
func openLab(t *testing.T) (context.Context, *vmlab.Lab) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("boots guests")
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) {
		skip("%v", err)
	}
	require.NoError(t, err)
	return ctx, lab
}

// shortDir returns an empty folder whose path is short enough for unix sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newSite returns a site with a running daemon, and prints its log when the
// test fails.
func newSite(t *testing.T, o site.Options) (context.Context, *site.Site) {
	t.Helper()
	ctx, lab := openLab(t)
	o.Dir = shortDir(t)
	if o.Image.Modules == nil {
		o.Image.Modules = []string{"nf_tables"}
		o.Image.Programs = []string{"/usr/sbin/nft"}
	}
	s, err := site.New(ctx, lab, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the daemon's log:\n%s", s.LogTail())
		}
		if err := s.Close(); err != nil {
			t.Errorf("close site: %v", err)
		}
	})
	require.NoError(t, s.StartDaemon(ctx))
	return ctx, s
}

// blue is the network of most tests.
const (
	bluePrefix4 = "10.231.0."
	bluePrefix6 = "fd00:231::"
)

// newPods returns a site with network blue and a guest vm1 with pods.
func newPods(t *testing.T, o site.Options, pods ...string) (context.Context, *site.Site, *vmlab.VM) {
	t.Helper()
	ctx, s := newSite(t, o)
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24", "--subnet", bluePrefix6+"/64")
	vm, err := s.Boot(ctx, "vm1", 31)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			log, err := vm.Get(context.Background(), "/run/log/brfuse-agent.log")
			t.Logf("agent's log (%v):\n%s\nconsole:\n%s", err, log, vm.SerialTail())
		}
	})
	for _, p := range pods {
		_, err := vm.AddPod(ctx, p)
		require.NoError(t, err)
	}
	if !o.AgentByHand {
		require.NoError(t, s.AddVM(ctx, vm))
		return ctx, s, vm
	}
	ref := vm.Ref()
	run(ctx, t, s, append([]string{"vm", "add", ref.Name}, site.Flags(ref)...)...)
	return ctx, s, vm
}

// run runs brfuse, which has to succeed.
func run(ctx context.Context, t *testing.T, s *site.Site, args ...string) string {
	t.Helper()
	out, err := s.MustBrfuse(ctx, args...)
	require.NoError(t, err)
	return out
}

// inGuest runs a command in the guest or a pod, which has to succeed.
func inGuest(ctx context.Context, t *testing.T, vm *vmlab.VM, pod string, argv ...string) string {
	t.Helper()
	res, err := vm.RunIn(ctx, pod, argv...)
	require.NoError(t, err)
	require.NoError(t, res.Err(), "%s in pod %q", strings.Join(argv, " "), pod)
	return res.Stdout
}

// onHost runs a command in the daemon's namespace, which has to succeed.
func onHost(ctx context.Context, t *testing.T, s *site.Site, argv ...string) string {
	t.Helper()
	res, err := s.Net.Run(ctx, argv...)
	require.NoError(t, err)
	require.NoError(t, res.Err(), strings.Join(argv, " "))
	return res.Stdout
}
