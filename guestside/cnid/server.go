// Package cnid serves the CNI plugin in the guest's agent: it takes one request
// a connection from a unix socket that is root's only, has the hypervisor and
// the agent carry it out, and answers with the attachment or a CNI error.
package cnid

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/internal/unixsock"
	"github.com/brfuse/brfuse/vnic"
)

// Host is the hypervisor's daemon, as hostclient.Client speaks to it.
type Host interface {
	Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error)
	// Detach takes a vNIC away; that there is none is no error. It waits for an
	// Attach of the same pod and interface that is under way.
	Detach(ctx context.Context, pod, iface string) error
	Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error)
	Check(ctx context.Context, pod, iface string) (vnic.Attachment, error)
	Ready(ctx context.Context, network string) error
}

// Agent is the guest's agent.
type Agent interface {
	// NameFree returns a [vnic.ErrUnknownPod] or [vnic.ErrNameTaken].
	NameFree(ctx context.Context, netns, iface string) error
	// Check returns a [vnic.ErrDiffers] that names what is not as ordered.
	Check(ctx context.Context, m vnic.Move) error
}

// Config sets up a [Server].
type Config struct {
	// Socket is the path to listen on. Its folder is made when it is missing.
	// Default: [cniapi.DefaultSocket].
	Socket string
	// Host and Agent do the work. Required.
	Host  Host
	Agent Agent
	// Network is for CNI configurations that name none. Default: the only network
	// that the guest may use.
	Network string
	// Log gets failures and what is taken back. Default: nothing is logged.
	Log *slog.Logger
	// Drain is how long requests may go on once the server is to stop. Default: 5 s.
	Drain time.Duration
}

// Limits of a server.
const (
	maxCalls    = 64               // at once; more wait
	readLimit   = 5 * time.Second  // for a request to come in, and a response to go out
	undoLimit   = 60 * time.Second // for a vNIC that nobody waits for any more to be taken back
	acceptPause = 100 * time.Millisecond
)

// Server answers the plugin.
type Server struct {
	cfg   Config
	log   *slog.Logger
	locks keylock.Locks[cniapi.Attachment] // held from ADD, CHECK or DEL until it is answered or taken back
	calls sync.WaitGroup
}

// New returns a server that does not listen yet.
func New(cfg Config) *Server {
	if cfg.Socket == "" {
		cfg.Socket = cniapi.DefaultSocket
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Drain <= 0 {
		cfg.Drain = 5 * time.Second
	}
	return &Server{cfg: cfg, log: cfg.Log.With(slog.String("door", "cni"))}
}

// Serve listens and answers until ctx ends, then gives the requests under way
// their time to end, removes the socket and returns ctx's reason. A socket that
// a dead server left behind is replaced. Serve is called once.
func (s *Server) Serve(ctx context.Context) error {
	l, err := unixsock.Listen(ctx, s.cfg.Socket, 0o755)
	if err != nil {
		return fmt.Errorf("serve cni plugin: %w", err)
	}
	// Calls don't end with ctx but at the end of the drain.
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	closing := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer closing()
	err = s.accept(ctx, base, l)
	_ = l.Close()
	s.drain(stop)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx, base context.Context, l *unixsock.Listener) error {
	slots := make(chan struct{}, maxCalls)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
			s.calls.Go(func() {
				defer func() { <-slots }()
				s.serve(base, conn)
			})
			continue
		case !passing(err):
			return fmt.Errorf("accept: %w", err)
		}
		s.log.Warn("accept", slog.Any("error", err))
		<-slots
		select {
		case <-time.After(acceptPause):
		case <-ctx.Done():
		}
	}
}

// passing tells whether an error of accept is one that goes by.
func passing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)
}

// errStopped is why calls end that outlast the drain.
var errStopped = errors.New("brfuse-agent stops")

// drain waits for the calls under way, and ends those that take too long.
func (s *Server) drain(stop context.CancelCauseFunc) {
	late := time.AfterFunc(s.cfg.Drain, func() { stop(errStopped) })
	defer late.Stop()
	s.calls.Wait()
}
