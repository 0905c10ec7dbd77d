package cnid

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/internal/unixsock"
)

// errGone is why a call ends whose plugin is no longer there.
var errGone = errors.New("the cni plugin is gone")

// outcome is what a call came to.
type outcome struct {
	response cniapi.Response
	// settle is told, once, whether the plugin got the response. Its ctx lasts
	// longer than the call. Optional.
	settle func(ctx context.Context, delivered bool)
}

func failed(err *cniapi.Error) outcome {
	return outcome{response: cniapi.Response{Error: err}}
}

// serve answers one connection.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	peer, err := unixsock.Peer(conn)
	if err == nil && peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		err = fmt.Errorf("user %d asks; only root may", peer.Uid)
	}
	if err != nil {
		s.log.Warn("refuse cni request", slog.Any("error", err))
		return
	}
	if err := conn.SetDeadline(time.Now().Add(readLimit)); err != nil {
		return
	}
	r := bufio.NewReader(conn)
	req, err := cniapi.ReadRequest(r)
	if err != nil {
		s.refuse(conn, err)
		return
	}
	call, end := s.life(ctx, conn, r, req)
	start := time.Now()
	out := s.do(call, int(peer.Pid), req)
	s.note(req, out.response.Error, time.Since(start))
	err = s.answer(call, conn, out.response)
	end()
	if out.settle != nil {
		out.settle(ctx, err == nil)
	}
}

// refuse answers a request that makes no sense.
func (s *Server) refuse(conn net.Conn, err error) {
	s.log.Warn("refuse cni request", slog.Any("error", err))
	if e, ok := errors.AsType[*cniapi.Error](err); ok {
		_ = cniapi.Write(conn, cniapi.Response{Version: cniapi.Version, Error: e}) // a peer that is gone needs no answer
	}
}

// life returns the context of a call: it ends at its deadline, and when the
// plugin hangs up. The function ends it and waits for what watches the plugin.
func (s *Server) life(ctx context.Context, conn *net.UnixConn, r *bufio.Reader, req cniapi.Request) (context.Context, func()) {
	limit := cmp.Or(time.Duration(req.Timeout)*time.Millisecond, cniapi.MaxTimeout)
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, expire := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s: %w", limit, context.DeadlineExceeded))
	watching := make(chan struct{})
	_ = conn.SetReadDeadline(time.Time{}) // fails when closed only
	go func() {
		defer close(watching)
		_, err := r.ReadByte() // nothing more is to come
		if err == nil {
			err = errors.New("more than one request")
		}
		cancel(fmt.Errorf("%w: %w", errGone, err))
	}()
	return ctx, func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		<-watching
		expire()
		cancel(nil)
	}
}

// answer sends the response, unless the plugin is gone.
func (s *Server) answer(ctx context.Context, conn net.Conn, r cniapi.Response) error {
	r.Version = cniapi.Version
	err := context.Cause(ctx)
	if !errors.Is(err, errGone) {
		_ = conn.SetWriteDeadline(time.Now().Add(readLimit)) // fails when closed only, and so will the write
		err = cniapi.Write(conn, r)
	}
	if err != nil {
		s.log.Warn("answer cni request", slog.Any("error", err))
	}
	return err
}

// note logs a call.
func (s *Server) note(req cniapi.Request, err *cniapi.Error, took time.Duration) {
	log := s.log.With(slog.String("verb", string(req.Verb)), slog.String("network", req.Conf),
		slog.String("container", req.Attach.Pod), slog.String("interface", req.Attach.Interface), slog.Duration("took", took))
	if err != nil {
		log.Warn("cni request failed", slog.Uint64("code", uint64(err.Code)), slog.Any("error", err))
		return
	}
	log.Debug("cni request done")
}

// do carries a request out.
func (s *Server) do(ctx context.Context, peer int, req cniapi.Request) outcome {
	if req.Attach.Network == "" {
		req.Attach.Network = s.cfg.Network
	}
	switch req.Verb {
	case cniapi.Add:
		return s.add(ctx, peer, req)
	case cniapi.Del:
		return s.del(ctx, req)
	case cniapi.Check:
		return s.check(ctx, peer, req)
	case cniapi.GC:
		return s.gc(ctx, req)
	default: // STATUS, or Validate would have said so
		return s.status(ctx, req)
	}
}
