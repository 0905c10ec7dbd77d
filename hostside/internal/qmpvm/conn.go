package qmpvm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/brfuse/brfuse/vnic"
)

// Conn is a QMP connection. One goroutine reads, one writes; any number of
// commands may be under way, and each waits no longer than its context. Conn is
// safe for concurrent use and implements go-qemu's [qmp.Monitor].
type Conn struct {
	path    string
	nc      net.Conn
	log     *slog.Logger
	version qmp.Version
	out     chan *Call    // to the writer; unbuffered, so what it took is being sent
	done    chan struct{} // closed by fail
	wg      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	next    uint64
	pending map[uint64]*Call
	subs    map[*Subscription]struct{}
	err     error // why done is closed
}

// open makes a ready connection of nc: greeting read, capabilities negotiated.
// The subscription sees every event from the first one on. nc is closed on error.
func open(ctx context.Context, nc net.Conn, path string, log *slog.Logger) (*Conn, *Subscription, error) {
	c := &Conn{
		path: path, nc: nc, log: log,
		out:     make(chan *Call),
		done:    make(chan struct{}),
		pending: map[uint64]*Call{},
		subs:    map[*Subscription]struct{}{},
	}
	sub := c.Subscribe()
	r := bufio.NewReader(nc)
	if err := c.greet(ctx, r); err != nil {
		c.fail(err)
		sub.Close()
		return nil, nil, err
	}
	c.wg.Go(func() { c.read(r) })
	c.wg.Go(c.write)
	if _, err := c.Do(ctx, qmp.Command{Execute: "qmp_capabilities"}); err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	return c, sub, nil
}

// greet reads the greeting. When ctx ends first, it cuts the read short.
func (c *Conn) greet(ctx context.Context, r *bufio.Reader) error {
	stop := context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	defer stop()
	line, err := readLine(r)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errNoGreeting
	case ctx.Err() != nil:
		return fmt.Errorf("read greeting: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("read greeting: %w: %w", err, vnic.ErrVMGone)
	}
	m, err := decode(line)
	if err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if m.greeting == nil {
		return fmt.Errorf("read greeting: not a QMP server: %.80q", line)
	}
	c.version = m.greeting.Version
	return nil
}

// Version returns QEMU's version, from its greeting.
func (c *Conn) Version() qmp.Version { return c.version }

// Done is closed when the connection is lost or closed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why Done is closed, and nil before that: [net.ErrClosed] after
// Close, else a [vnic.ErrVMGone].
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Do runs a command and returns what follows "return" in QEMU's answer. Files go
// along with it as descriptors; the caller may close them when Do returns. The
// error is an [*Error] when QEMU refused, [vnic.ErrVMGone] when the connection is
// lost, or ctx's; in the last case the command may still run, and its answer is
// dropped.
func (c *Conn) Do(ctx context.Context, cmd qmp.Command, files ...*os.File) (json.RawMessage, error) {
	call, err := c.Start(ctx, cmd, files...)
	if err != nil {
		return nil, err
	}
	return call.Wait(ctx)
}

// Close ends the connection and waits for its goroutines. Commands under way
// return [net.ErrClosed].
func (c *Conn) Close() error {
	c.fail(fmt.Errorf("qmp %s: %w", c.path, net.ErrClosed))
	c.wg.Wait()
	return nil
}

// fail ends the connection, and with it everything that waits.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
	_ = c.nc.Close()
	for s := range c.subs {
		s.q.End()
	}
	clear(c.pending)
}

func (c *Conn) read(r *bufio.Reader) {
	for {
		line, err := readLine(r)
		if err != nil {
			c.fail(fmt.Errorf("qmp %s: connection lost: %w: %w", c.path, err, vnic.ErrVMGone))
			return
		}
		m, err := decode(line)
		if err != nil {
			c.fail(fmt.Errorf("qmp %s: %w: %w", c.path, err, vnic.ErrVMGone))
			return
		}
		c.deliver(m)
	}
}

func (c *Conn) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.event != nil:
		for s := range c.subs {
			s.q.Push(*m.event)
		}
	case m.reply != nil:
		call, ok := c.pending[m.reply.id]
		if !ok || !m.reply.known {
			c.log.Debug("qmp: reply dropped, nobody waits for it", "id", m.reply.id)
			return
		}
		delete(c.pending, m.reply.id)
		call.reply <- m.reply // has room for the one reply
	}
}
