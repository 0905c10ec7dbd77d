// Package window has a guest tell the hypervisor when the measured time of a load
// begins and ends, so that what the hypervisor counts is of that time. The guest's
// end is `guest load run --tell` of bench/guest.
//
// It says a word, a line, over a TCP connection by the guest's own NIC, and goes
// on when it gets a line back: before the first message, and after the last.
package window

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// The words.
const (
	Begin = "begin"
	End   = "end"
)

// wordLimit bounds the time for an answer to be taken.
const wordLimit = 10 * time.Second

// Listener waits for the words of one guest at a time. Close ends it.
type Listener struct {
	l     net.Listener
	begin func() (end func())
	done  chan struct{}

	mu     sync.Mutex // guards what is below
	conn   net.Conn   // of the guest that speaks
	closed bool
	err    error
}

// Listen listens on an address of a namespace, on any port. It calls begin at the
// first word and what that returned at the second, one at a time, and the guest waits
// meanwhile.
func Listen(ctx context.Context, ns *netnsx.NS, addr netip.Addr, begin func() (end func())) (*Listener, error) {
	l := &Listener{begin: begin, done: make(chan struct{})}
	err := ns.Do(func() (err error) {
		l.l, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for the measured time: %w", err)
	}
	go l.serve()
	return l, nil
}

// Addr is what the guest is told.
func (l *Listener) Addr() netip.AddrPort { return l.l.Addr().(*net.TCPAddr).AddrPort() }

// Close stops listening and waits. The error is that of a guest that said something
// else, or began and said no more.
func (l *Listener) Close() error {
	err := l.l.Close()
	l.mu.Lock()
	l.closed = true
	if l.conn != nil {
		_ = l.conn.SetDeadline(time.Now()) // what it was to say, it won't
	}
	l.mu.Unlock()
	<-l.done
	return errors.Join(l.err, err)
}

func (l *Listener) serve() {
	defer close(l.done)
	for {
		conn, err := l.l.Accept()
		if err != nil {
			return // closed
		}
		if l.take(conn) {
			err = l.attend(conn)
		}
		l.mu.Lock()
		l.conn, l.err = nil, errors.Join(l.err, err, conn.Close())
		l.mu.Unlock()
	}
}

// take makes conn the one that Close ends, unless it was called.
func (l *Listener) take(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conn = conn
	}
	return !l.closed
}

// attend hears both words. A guest that hangs up without one has nothing to say.
func (l *Listener) attend(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 64)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil //nolint:nilerr // its run failed, which it says elsewhere
	}
	if string(line) != Begin+"\n" {
		return fmt.Errorf("a guest said %q, not %q", line, Begin)
	}
	end := l.begin()
	if err := answer(conn); err != nil {
		return err
	}
	line, err = in.ReadSlice('\n')
	switch {
	case err != nil:
		return fmt.Errorf("a guest began and didn't end: %w", err)
	case string(line) != End+"\n":
		return fmt.Errorf("a guest began and then said %q, not %q", line, End)
	}
	end()
	return answer(conn)
}

func answer(conn net.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(wordLimit)); err != nil {
		return err
	}
	_, err := conn.Write([]byte("\n"))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("a guest takes no answer: %w", err)
	}
	return err
}
