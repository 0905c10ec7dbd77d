package cli_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/cli"
	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
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
// in memory: VM vm1 runs, with pods web and db, vm2 with a pod web, and vm3.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			socket := filepath.Join(env.WorkDir, "brfused.sock")
			env.Setenv(cli.SocketEnv, socket)
			serve(t, env.Defer, env.Setenv, socket)
			return nil
		},
	})
}

// serve serves on the socket, and over TCP at $ADDR with the certificate in $TLS, a
// folder with cert.pem, key.pem and ca.pem. $STRANGER is such a folder of another CA.
func serve(t *testing.T, cleanup func(func()), setenv func(key, value string), socket string) {
	t.Helper()
	world := orchestratortest.New()
	world.Boot("vm1", "web", "db")
	world.Boot("vm2", "web")
	world.Boot("vm3")
	conn := world.Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: conn})
	require.NoError(t, err)
	conn.Notify(orch.Notify)
	log := slog.New(slog.DiscardHandler)
	files := tlstest.NewCA(t).Files(t, "127.0.0.1", "hv1")
	setenv("TLS", filepath.Dir(files.Cert))
	setenv("STRANGER", filepath.Dir(tlstest.NewCA(t).Files(t).Cert))
	src, err := tlsfiles.Open(files, log)
	require.NoError(t, err)
	api := daemon.NewAPI(daemon.APIConfig{Log: log, Orch: orch, VMs: prober{}, Directory: directory{}, TLS: src})
	var lc net.ListenConfig
	unix, err := lc.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	tcp, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	setenv("ADDR", tcp.Addr().String())
	for l, srv := range map[net.Listener]*grpc.Server{unix: api.Server(t.Context()), tcp: api.ServerTLS(t.Context())} {
		done := make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		cleanup(func() {
			srv.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	cleanup(func() {
		api.Close()
		if err := orch.Close(); err != nil {
			t.Error(err)
		}
	})
}

// directory is one of hv1, which is the daemon's own and has all that there is, and hv2,
// which is dead.
type directory struct{}

var own = vnic.Hypervisor{Name: "hv1", Underlay: netip.MustParseAddr("192.0.2.1"), MTU: 1500, API: "192.0.2.1:7443", Version: "v1"}

func (directory) Hypervisor() string { return own.Name }

func (directory) HypervisorOf(_ context.Context, vm string) (vnic.Hypervisor, error) {
	if vm == "lost" {
		return vnic.Hypervisor{Name: "hv2"}, nil
	}
	return own, nil
}

func (directory) HypervisorOfAttachment(context.Context, vnic.ID) (vnic.Hypervisor, error) {
	return own, nil
}

func (directory) HypervisorsOfPod(string) []string { return nil }

func (directory) Hypervisors(context.Context) ([]vnic.HypervisorStatus, error) {
	return []vnic.HypervisorStatus{
		{Hypervisor: own, State: vnic.HypervisorAlive, Attachments: 3},
		{Hypervisor: vnic.Hypervisor{Name: "hv2"}, State: vnic.HypervisorDead},
	}, nil
}

func (directory) RemoveHypervisor(_ context.Context, name string) error {
	if name == own.Name {
		return fmt.Errorf("hypervisor %s is alive: %w", name, vnic.ErrInUse)
	}
	return nil
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
