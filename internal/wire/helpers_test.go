package wire

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
)

// testLimit bounds what a test waits for.
const testLimit = 20 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// socketPair returns both ends of a unix stream socket.
func socketPair(tb testing.TB) (host, guest net.Conn) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(tb, err)
	conns := make([]net.Conn, len(fds))
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		conns[i], err = net.FileConn(f)
		require.NoError(tb, err)
		require.NoError(tb, f.Close())
		tb.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

// openBoth makes a session over two ends of a connection.
func openBoth(ctx context.Context, tb testing.TB, hostEnd, guestEnd io.ReadWriteCloser, hostCfg, guestCfg Config) (host, guest *Session) {
	tb.Helper()
	var gerr error
	var wg sync.WaitGroup
	wg.Go(func() { guest, gerr = Guest(ctx, guestEnd, guestCfg) })
	host, herr := Host(ctx, hostEnd, hostCfg)
	wg.Wait()
	require.NoError(tb, herr)
	require.NoError(tb, gerr)
	tb.Cleanup(func() {
		_ = host.Close()
		_ = guest.Close()
	})
	return host, guest
}

// echoAgent is an agent whose Info gives back what it was made with; the other
// calls are up to a function.
type echoAgent struct {
	agentv1.AgentService
	version string
	list    func(context.Context) (*agentv1.ListResponse, error)
}

func (e *echoAgent) Info(context.Context, *agentv1.InfoRequest) (*agentv1.InfoResponse, error) {
	return &agentv1.InfoResponse{Version: e.version}, nil
}

func (e *echoAgent) List(ctx context.Context, _ *agentv1.ListRequest) (*agentv1.ListResponse, error) {
	return e.list(ctx)
}

func (e *echoAgent) config() Config {
	return Config{Register: func(s *ttrpc.Server) { agentv1.RegisterAgentService(s, e) }}
}

// sinkHost counts reports.
type sinkHost struct {
	agentv1.HostService // what it does not implement is not called
	report              func(context.Context, *agentv1.ReportRequest) error
}

func (h *sinkHost) Report(ctx context.Context, req *agentv1.ReportRequest) (*agentv1.ReportResponse, error) {
	return &agentv1.ReportResponse{}, h.report(ctx, req)
}

func (h *sinkHost) config() Config {
	return Config{Register: func(s *ttrpc.Server) { agentv1.RegisterHostService(s, h) }}
}

func info(ctx context.Context, s *Session) (string, error) {
	resp, err := agentv1.NewAgentClient(s.Client()).Info(ctx, &agentv1.InfoRequest{})
	return resp.GetVersion(), err
}

// await fails the test unless c is closed or readable in time.
func await[T any](tb testing.TB, c <-chan T, what string) (v T) {
	tb.Helper()
	select {
	case v = <-c:
	case <-time.After(testLimit):
		require.FailNow(tb, "timeout", "waited %s for %s", testLimit, what)
	}
	return v
}

// noLeaks fails the test when goroutines of this module, yamux or ttrpc outlive
// it. Call it first.
func noLeaks(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		var left []string
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
			if left = workers(); len(left) == 0 {
				return
			}
			<-time.After(5 * time.Millisecond)
		}
		tb.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

func workers() (left []string) {
	buf := make([]byte, 4<<20)
	for i, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if i > 0 && (strings.Contains(stack, "brfuse/internal/wire.") || strings.Contains(stack, "yamux") || strings.Contains(stack, "ttrpc")) &&
			!strings.Contains(stack, "testing.tRunner") {
			left = append(left, stack)
		}
	}
	return left
}
