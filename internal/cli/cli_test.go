package cli_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/cli"
	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"brfuse": brfuse})
}

func brfuse() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m := cli.Main{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	os.Exit(m.Run(ctx))
}

// TestScripts runs the command line against the daemon's server, with halves
// in memory: VM vm1 runs, with pods web and db; nothing else is there.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			socket := filepath.Join(env.WorkDir, "brfused.sock")
			env.Setenv(cli.SocketEnv, socket)
			serve(t, env.Defer, socket)
			return nil
		},
	})
}

func serve(t *testing.T, cleanup func(func()), socket string) {
	t.Helper()
	world := orchestratortest.New()
	world.Boot("vm1", "web", "db")
	conn := world.Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: conn})
	require.NoError(t, err)
	conn.Notify(orch.Notify)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	srv := daemon.NewServer(t.Context(), slog.New(slog.DiscardHandler), orch, prober{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := orch.Close(); err != nil {
			t.Error(err)
		}
	})
}

// prober knows nothing of VMs but that they run, and one check that fails.
type prober struct{}

func (prober) Channel(context.Context, string) (string, error) { return "/run/domain.agent", nil }

func (prober) VMState(_ context.Context, vm vnic.VM) *brfusev1.VM {
	return &brfusev1.VM{Name: vm.Name, Qmp: vm.QMP, Channel: vm.Channel, State: "running", Agent: "connected", Hotplug: "acpi", SlotsTotal: 31}
}

// Resolve knows docker's container web-1, whose pod is web, and db-1, which has
// ended.
func (prober) Resolve(_ context.Context, vm, runtime, container string) (vnic.Container, error) {
	switch {
	case vm != "vm1" || runtime != "docker":
		return vnic.Container{}, vnic.ErrUnknownContainer
	case container == "web-1" || container == "sidecar":
		return vnic.Container{ID: strings.Repeat("ab", 32), Name: container, Pod: strings.Repeat("cd", 32), Netns: "web"}, nil
	}
	return vnic.Container{}, vnic.ErrUnknownContainer
}

func (prober) Check(context.Context, string, vnic.Move) error { return vnic.ErrDiffers }

func (prober) Doctor(context.Context) []*brfusev1.Check {
	return []*brfusev1.Check{
		{Name: "tap", Status: "ok", Detail: "/dev/net/tun"},
		{Name: "vm vm1", Status: "fail", Detail: "QEMU does not answer", Remedy: "start the vm"},
	}
}
