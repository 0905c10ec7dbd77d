package wire

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// beat keeps a session under watch over its heartbeat stream.
type beat struct {
	conn     net.Conn
	nonce    Nonce
	interval time.Duration
	timeout  time.Duration
	fail     func(error)

	pending atomic.Int32 // of a host: PINGs without an answer
}

// host sends a PING every interval and expects a PONG within the timeout. It
// returns when the stream is closed.
func (b *beat) host(ctx context.Context) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		b.ping(ctx)
	}()
	b.watch(kindPong, func() error {
		if b.pending.Add(-1) < 0 {
			return fmt.Errorf("%s without %s: %w", kindPong, kindPing, errProtocol)
		}
		return nil
	})
	<-sent
}

func (b *beat) ping(ctx context.Context) {
	tick := time.NewTicker(b.interval)
	defer tick.Stop()
	for {
		b.pending.Add(1)
		if err := send(b.conn, kindPing, b.nonce); err != nil {
			b.fail(fmt.Errorf("heartbeat: %w", err))
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// guest answers PINGs and expects one within the timeout.
func (b *beat) guest() {
	b.watch(kindPing, func() error { return send(b.conn, kindPong, b.nonce) })
}

// watch reads frames of one kind and ends the session when none comes in time.
// The timer does not depend on the reads: a read may hang in the mux.
func (b *beat) watch(want kind, got func() error) {
	dog := time.AfterFunc(b.timeout, func() {
		b.fail(fmt.Errorf("heartbeat: nothing heard for %s", b.timeout))
	})
	defer dog.Stop()
	buf := make([]byte, frameSize)
	for {
		if _, err := io.ReadFull(b.conn, buf); err != nil {
			b.fail(fmt.Errorf("heartbeat: %w", err))
			return
		}
		err := b.check(buf, want)
		if err == nil {
			dog.Reset(b.timeout)
			err = got()
		}
		if err != nil {
			b.fail(fmt.Errorf("heartbeat: %w", err))
			return
		}
	}
}

func (b *beat) check(buf []byte, want kind) error {
	f, err := decodeFrame(buf)
	switch {
	case err != nil:
		return err
	case f.kind != want:
		return fmt.Errorf("%s instead of %s: %w", f.kind, want, errProtocol)
	case f.nonce != b.nonce:
		return fmt.Errorf("%s of another session: %w", f.kind, errProtocol)
	}
	return nil
}
