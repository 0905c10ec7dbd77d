package daemon

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tracing"
	"github.com/brfuse/brfuse/orchestrator"
)

// APIConfig says what an [API] is made of. All is required but where a default is
// named.
type APIConfig struct {
	Log  *slog.Logger
	Orch *orchestrator.Orchestrator
	VMs  Prober
	// Directory knows the other hypervisors. Default: there is none.
	Directory Directory
	// TLS is how other daemons are reached, and by whom the API is reached over TCP.
	// Default: neither works.
	TLS *tlsfiles.Source
	// Tracing has calls traced. Default: they are not.
	Tracing *tracing.Tracing
}

// API is the public API. With a directory, a call about what another hypervisor has
// is forwarded to that one's daemon.
type API struct {
	cfg     APIConfig
	service brfusev1.BrfuseServer
	peers   *peers // nil: nothing is forwarded
}

// NewAPI returns the API. Close it after its servers.
func NewAPI(cfg APIConfig) *API {
	s := &server{orch: cfg.Orch, vms: cfg.VMs, bench: newBench(cfg.Log, cfg.Orch, cfg.VMs), dir: cfg.Directory}
	if s.alone() {
		return &API{cfg: cfg, service: s}
	}
	p := newPeers(cfg.Directory.Hypervisor(), cfg.TLS, cfg.Tracing.DialOptions()...)
	return &API{cfg: cfg, service: &forwarding{server: s, peers: p}, peers: p}
}

// Close closes the connections to other daemons.
func (a *API) Close() {
	if a.peers != nil {
		a.peers.close()
	}
}

// Limits of the server. A request is some hundred bytes.
const (
	maxRequest = 1 << 20 // bytes
	maxCalls   = 256     // at once, of one client
)

// Server returns a server for a unix socket, whose permissions say who may call. When
// ctx ends, so do the streams, which a graceful stop would wait for; other calls go
// on. Its Stop waits for the calls that it cancels.
func (a *API) Server(ctx context.Context, more ...grpc.ServerOption) *grpc.Server {
	srv := grpc.NewServer(append(slices.Concat(more, a.cfg.Tracing.ServerOptions()),
		grpc.UnaryInterceptor(intercept(a.cfg.Log)), grpc.StreamInterceptor(interceptStream(ctx)),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxCalls), grpc.WaitForHandlers(true),
	)...)
	brfusev1.RegisterBrfuseServer(srv, a.service)
	return srv
}

// Limits of a connection over TCP. A client that is gone without a word is noticed
// after pingTime and pingLimit, and its calls end: what it wanted attached is undone.
const (
	handshakeLimit = 10 * time.Second
	pingTime       = 10 * time.Second // between a sign of life and a ping; gRPC's clients allow no less
	pingLimit      = 5 * time.Second  // for the answer, and for data to be acknowledged (TCP_USER_TIMEOUT)
)

// ServerTLS is Server for TCP, with mutual TLS: clients that the CA vouches for may
// call, whoever they are.
func (a *API) ServerTLS(ctx context.Context) *grpc.Server {
	return a.Server(ctx,
		grpc.Creds(credentials.NewTLS(a.cfg.TLS.Server())), grpc.ConnectionTimeout(handshakeLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingTime, Timeout: pingLimit}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingTime / 2}),
	)
}
