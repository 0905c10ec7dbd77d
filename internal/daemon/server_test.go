package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// silent is a Prober of VMs that take a second each to say nothing.
type silent struct{}

func (silent) Channel(context.Context, string) (string, error) { return "", vnic.ErrUnsupported }

func (silent) VMState(ctx context.Context, vm vnic.VM) *brfusev1.VM {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	<-ctx.Done()
	return &brfusev1.VM{Name: vm.Name}
}

func (silent) Doctor(context.Context) []*brfusev1.Check { return nil }

func (silent) Resolve(ctx context.Context, vm, runtime, container string) (vnic.Container, error) {
	return containers{}.Resolve(ctx, vm, runtime, container)
}

func (silent) Check(_ context.Context, _ string, m vnic.Move) error { return containers{}.Check(m) }

func TestSilentVMsAreAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vms := make([]vnic.VM, maxProbes)
		for i := range vms {
			vms[i].Name = fmt.Sprint("vm", i)
		}
		start := time.Now()
		list := states(t.Context(), silent{}, vms)
		assert.Equal(t, time.Second, time.Since(start))
		for i, m := range list {
			assert.Equal(t, vms[i].Name, m.GetName())
		}
	})
}

// served is a served API, with VM vm1 in a world in memory.
type served struct {
	world  *orchestratortest.World
	orch   *orchestrator.Orchestrator
	client brfusev1.BrfuseClient
	server *grpc.Server
	stop   context.CancelFunc
}

func serve(t *testing.T) served {
	t.Helper()
	return serveWith(t, silent{})
}

// serveWith is serve with another prober.
func serveWith(t *testing.T, p Prober) served {
	t.Helper()
	world := orchestratortest.New()
	world.Boot("vm1", "web")
	conn := world.Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: memstore.New(), Host: conn, Guest: conn, VMs: conn})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, orch.Close()) })
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(t.Context(), path, "")
	require.NoError(t, err)
	life, stop := context.WithCancel(t.Context())
	srv := NewAPI(APIConfig{Log: slog.New(slog.DiscardHandler), Orch: orch, VMs: p}).Server(life)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		assert.NoError(t, <-done)
	})
	return served{world, orch, dialUnix(t, path), srv, stop}
}

// dialUnix returns a client of the API's unix socket.
func dialUnix(t *testing.T, path string) brfusev1.BrfuseClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, cc.Close()) })
	return brfusev1.NewBrfuseClient(cc)
}

// TestWatchersDoNotHoldUpTheStop: their streams never end by themselves.
func TestWatchersDoNotHoldUpTheStop(t *testing.T) {
	s := serve(t)
	stream, err := s.client.Watch(t.Context(), &brfusev1.WatchRequest{})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	_, err = s.client.List(t.Context(), &brfusev1.ListRequest{}) // the server has seen the stream, too
	require.NoError(t, err)
	s.stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.server.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-time.After(stopLimit / 2):
		require.FailNow(t, "the server still waits for the watcher")
	}
	assert.Equal(t, codes.Unavailable, status.Code(<-ended))
}

// TestDetachOfAllInterfaces: one that can't be detached doesn't keep the others.
func TestDetachOfAllInterfaces(t *testing.T) {
	s := serve(t)
	ctx := t.Context()
	_, err := s.client.AddVM(ctx, &brfusev1.AddVMRequest{Name: "vm1", Qmp: "/run/vm1.qmp", Channel: "/run/vm1.agent"})
	require.NoError(t, err)
	_, err = s.client.CreateNetwork(ctx, &brfusev1.CreateNetworkRequest{Network: &brfusev1.Network{Name: "blue", Subnets: []string{"10.1.0.0/24"}}})
	require.NoError(t, err)
	for _, name := range []string{"eth0", "eth1", "eth2"} {
		_, err := s.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "vm1", Pod: "web", Interface: name})
		require.NoError(t, err)
	}
	failed := make(chan struct{}, 1)
	failed <- struct{}{}
	s.world.Before("unplug", func(context.Context) error {
		select {
		case <-failed:
			return assert.AnError
		default:
			return nil
		}
	})
	_, err = s.client.Detach(ctx, &brfusev1.DetachRequest{Pod: "web"})
	require.ErrorContains(t, err, assert.AnError.Error())
	require.Eventually(t, func() bool { // the one that failed goes on in the background
		list, err := s.client.List(ctx, &brfusev1.ListRequest{})
		return err == nil && len(list.GetAttachments()) == 0
	}, 5*time.Second, 10*time.Millisecond)
}

func TestEncode(t *testing.T) {
	agent := status.Error(codes.Internal, "agent said so")
	cases := []struct {
		name string
		err  error
		code codes.Code
		is   error
	}{
		{"none", nil, codes.OK, nil},
		{"of vnic", fmt.Errorf("vm vm1: %w", vnic.ErrVMGone), codes.Unavailable, vnic.ErrVMGone},
		{"of vnic, with a status in it", fmt.Errorf("vm vm1: %w: %w", vnic.ErrAgentUnavailable, agent), codes.Unavailable, vnic.ErrAgentUnavailable},
		{"gRPC's own", status.Error(codes.Unimplemented, "no"), codes.Unimplemented, nil},
		{"any", assert.AnError, codes.Unknown, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := encode(c.err)
			assert.Equal(t, c.code, status.Code(err))
			if c.is != nil {
				assert.ErrorIs(t, rpcerr.Decode(err), c.is)
			}
		})
	}
}
