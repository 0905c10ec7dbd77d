package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

const (
	// helloInterval is how often a host repeats HELLO.
	helloInterval = 250 * time.Millisecond
	// readyTimeout is how long a host waits for READY before it starts over: the
	// agent may have died between ACK and START. Starting over too soon breaks a
	// session that a slow guest has just begun.
	readyTimeout = 5 * time.Second
	// maxRestarts bounds how often a guest may make a host start over.
	maxRestarts = 64
)

// VersionError is returned when the two sides speak different versions.
type VersionError struct {
	Host, Guest uint16
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("brfused speaks version %d of the channel's protocol and brfuse-agent version %d: install the same release of both",
		e.Host, e.Guest)
}

// errRestarts is returned when a guest resets the handshake again and again.
var errRestarts = errors.New("the agent restarts the handshake again and again")

// closeOn closes c when ctx ends, which makes reads and writes return. The
// result stops the watch; it returns false when c was closed.
func closeOn(ctx context.Context, c io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.Close() })
}

// because returns ctx's reason when ctx has ended, else err.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// hostHandshake agrees on a nonce with the guest. What it leaves in r belongs
// to the session. On an error the caller closes the connection.
func hostHandshake(ctx context.Context, r *bufio.Reader, conn io.WriteCloser) (Nonce, error) {
	defer closeOn(ctx, conn)()
	h := &hostShake{conn: conn, frames: make(chan frame), more: make(chan struct{}, 1), failed: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.read(&scanner{r: r})
	}()
	nonce, err := h.run(ctx)
	if err != nil {
		_ = conn.Close()
	}
	close(h.more)
	<-done
	return nonce, because(ctx, err)
}

// hostShake is the state of a host's handshake.
type hostShake struct {
	conn   io.Writer
	frames chan frame    // from the reading goroutine
	more   chan struct{} // allows that goroutine to read one frame
	failed chan error    // why it ended

	nonce    Nonce
	started  bool // START is sent
	restarts int
}

func (h *hostShake) read(s *scanner) {
	for range h.more {
		f, err := s.next()
		if err != nil {
			h.failed <- err
			return
		}
		select {
		case h.frames <- f:
		case <-h.more: // closed: the handshake ended without this frame
			return
		}
	}
}

func (h *hostShake) run(ctx context.Context) (Nonce, error) {
	h.more <- struct{}{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return Nonce{}, context.Cause(ctx)
		case err := <-h.failed:
			return Nonce{}, fmt.Errorf("read: %w", err)
		case <-timer.C:
			// The first HELLO, another one, or a new start after a lost START.
			if h.started || h.nonce == (Nonce{}) {
				h.started, h.nonce = false, newNonce()
			}
			if err := h.send(kindHello); err != nil {
				return Nonce{}, err
			}
			timer.Reset(helloInterval)
		case f := <-h.frames:
			if f.kind == kindReady && h.started && f.nonce == h.nonce {
				return h.nonce, nil
			}
			h.more <- struct{}{} // before anything is sent: the guest may be sending, too
			if err := h.take(f, timer); err != nil {
				return Nonce{}, err
			}
		}
	}
}

// take acts on a frame that is not the awaited READY.
func (h *hostShake) take(f frame, timer *time.Timer) error {
	switch {
	case f.kind == kindReset:
		if h.restarts++; h.restarts > maxRestarts {
			return errRestarts
		}
		timer.Reset(0)
	case f.nonce != h.nonce:
		// A frame of an earlier handshake.
	case f.kind == kindAck && f.version != Version:
		return &VersionError{Host: Version, Guest: f.version}
	case f.kind == kindAck && !h.started:
		h.started = true
		timer.Reset(readyTimeout)
		return h.send(kindStart)
	}
	return nil
}

func (h *hostShake) send(k kind) error { return send(h.conn, k, h.nonce) }

func send(w io.Writer, k kind, n Nonce) error {
	if _, err := w.Write(frame{version: Version, kind: k, nonce: n}.encode()); err != nil {
		return fmt.Errorf("send %s: %w", k, err)
	}
	return nil
}

// guestHandshake waits until a host starts a session. What it leaves in r
// belongs to the session.
func guestHandshake(ctx context.Context, r *bufio.Reader, conn io.WriteCloser, log *slog.Logger) (Nonce, error) {
	defer closeOn(ctx, conn)()
	if err := send(conn, kindReset, Nonce{}); err != nil {
		return Nonce{}, because(ctx, err)
	}
	var nonce Nonce
	var other uint16
	for s := (scanner{r: r}); ; {
		f, err := s.next()
		if err != nil {
			return Nonce{}, because(ctx, fmt.Errorf("read: %w", err))
		}
		switch {
		case f.kind == kindHello:
			if err := send(conn, kindAck, f.nonce); err != nil {
				return Nonce{}, because(ctx, err)
			}
			if f.version == Version {
				nonce = f.nonce
			} else if f.version != other {
				other = f.version
				log.Warn("handshake", "error", &VersionError{Host: f.version, Guest: Version})
			}
		case f.kind == kindStart && f.version == Version && f.nonce == nonce && nonce != Nonce{}:
			return nonce, because(ctx, send(conn, kindReady, nonce))
		}
	}
}
