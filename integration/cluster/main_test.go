package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// limit bounds each test, in its context, and startLimit the set-up.
const (
	limit      = 8 * time.Minute
	startLimit = 10 * time.Minute
)

// shared is what all tests work on, made by the first of them.
var shared struct {
	once sync.Once
	rig  *rig
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.rig != nil {
		if err := shared.rig.close(); err != nil {
			fmt.Fprintln(os.Stderr, "close:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// open returns the set-up, and skips the test where that can't be had. When the
// test fails the daemons' logs are printed.
func open(t *testing.T) (context.Context, *rig) {
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
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		shared.rig, shared.err = newRig(ctx)
	})
	if errors.Is(shared.err, vmlab.ErrMissing) || errors.Is(shared.err, etcdtest.ErrMissing) {
		skip("%v", shared.err)
	}
	require.NoError(t, shared.err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if t.Failed() {
			shared.rig.logs(t)
		}
	})
	return ctx, shared.rig
}

// run runs brfuse at a hypervisor, which has to succeed.
func run(ctx context.Context, t *testing.T, h *hyper, args ...string) string {
	t.Helper()
	out, err := h.MustBrfuse(ctx, args...)
	require.NoError(t, err, "at %s", h.name)
	return out
}

// undoLimit bounds each step by which a test leaves things as they were.
const undoLimit = time.Minute

// undo has a test end with a step that has to succeed.
func undo(ctx context.Context, t *testing.T, step func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		require.NoError(t, step(ctx))
	})
}

// attach attaches a pod, which is made, to network blue.
func attach(ctx context.Context, t *testing.T, h *hyper, pod string) site.Attachment {
	t.Helper()
	_, err := h.vm.AddPod(ctx, pod)
	require.NoError(t, err)
	undo(ctx, t, func(ctx context.Context) error {
		_, err := h.MustBrfuse(ctx, "detach", "--vm", h.vm.Name(), "--pod", pod)
		return errors.Join(err, h.vm.RemovePod(ctx, pod))
	})
	var a site.Attachment
	require.NoError(t, h.BrfuseJSON(ctx, &a, "attach", "--vm", h.vm.Name(), "--pod", pod))
	return a
}

// The subnets of network blue.
const blue4, blue6 = "10.231.0.0/24", "fd00:231::/64"

// createBlue makes an overlay, and removes it with the test.
func createBlue(ctx context.Context, t *testing.T, h *hyper) {
	t.Helper()
	run(ctx, t, h, "network", "create", "blue", "--type", "overlay", "--subnet", blue4, "--subnet", blue6)
	undo(ctx, t, func(ctx context.Context) error {
		_, err := h.MustBrfuse(ctx, "network", "rm", "blue")
		return err
	})
}

// inPod runs a command in a pod of a hypervisor's guest, which has to succeed.
func inPod(ctx context.Context, t *testing.T, h *hyper, pod string, argv ...string) string {
	t.Helper()
	res, err := h.vm.RunIn(ctx, pod, argv...)
	require.NoError(t, err)
	require.NoError(t, res.Err(), "%s in pod %s", strings.Join(argv, " "), pod)
	return res.Stdout
}

// start starts a command in a pod, and kills it with the test.
func start(ctx context.Context, t *testing.T, h *hyper, pod string, argv ...string) *vmlab.GuestProcess {
	t.Helper()
	p, err := h.vm.Start(ctx, vmlab.Command{Argv: argv, Netns: pod, Log: pod + ".log"})
	require.NoError(t, err)
	undo(ctx, t, p.Kill)
	return p
}

// onHost runs a command in a hypervisor's namespace, which has to succeed.
func onHost(ctx context.Context, t *testing.T, h *hyper, argv ...string) string {
	t.Helper()
	res, err := h.Net.Run(ctx, argv...)
	require.NoError(t, err)
	require.NoError(t, res.Err(), "%s at %s", strings.Join(argv, " "), h.name)
	return res.Stdout
}
