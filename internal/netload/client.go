package netload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// RunOptions are a client's. The zero value is right.
type RunOptions struct {
	// Observe is called around the measured phase. Default: none.
	Observe Observer
	// Within runs fn where the client's sockets are to be made: see [Options].
	Within func(fn func() error) error
}

// The phases' numbers, which datagrams carry.
const (
	phaseWarmUp   = 1
	phaseMeasured = 2
)

// Run does one run of spec against the server at that address and returns what
// it measured. A zone in the address is an interface's index. An invalid spec is
// an [ErrSpec]; when ctx ends, the error is its cause. It may be called from
// several goroutines; the server bounds the runs at once.
func Run(ctx context.Context, server netip.AddrPort, spec Spec, opts RunOptions) (Result, error) {
	spec = spec.withDefaults()
	if err := spec.Check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, spec.total()+runSlack)
	defer cancel()
	r, err := run(ctx, server, spec, opts)
	if err != nil {
		return Result{}, fmt.Errorf("run %s against %s: %w", spec.Kind, server, err)
	}
	return r, nil
}

// client is one run at its client. One goroutine uses it.
type client struct {
	*party
	server netip.AddrPort
	line   *line
	opts   RunOptions
}

func run(ctx context.Context, server netip.AddrPort, spec Spec, opts RunOptions) (Result, error) {
	if err := checkAddr(server); err != nil {
		return Result{}, err
	}
	c := &client{party: newParty(spec, 0, opts.Within), server: server, opts: opts}
	stop := context.AfterFunc(ctx, c.socks.shutdown)
	defer stop()
	defer c.hangUp()
	r, err := c.do(ctx)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil: // what else failed is what follows from it
		return Result{}, context.Cause(ctx)
	case has(c.broken):
		return Result{}, errors.Join(c.why, err)
	}
	return Result{}, err
}

func (c *client) do(ctx context.Context) (Result, error) {
	if err := c.within(c.open); err != nil {
		return Result{}, err
	}
	if err := c.within(c.connectFlows); err != nil {
		return Result{}, err
	}
	if err := c.ready(ctx); err != nil {
		return Result{}, err
	}
	if c.spec.WarmUp > 0 {
		if _, err := c.measure(ctx, c.plan(phaseWarmUp)); err != nil {
			return Result{}, fmt.Errorf("warm up: %w", err)
		}
	}
	r, err := c.measure(ctx, c.plan(phaseMeasured))
	if err != nil {
		return Result{}, err
	}
	_, err = c.ask(request{Op: opClose}, stepTimeout)
	return r, err
}

// open connects to the server and opens the run.
func (c *client) open() error {
	fd, err := c.dial(header{role: roleControl})
	if err != nil {
		return err
	}
	c.line = newLine(fd, maxReply)
	r, err := c.ask(request{Op: opOpen, Version: version, Spec: &c.spec}, stepTimeout)
	if err != nil {
		return err
	}
	c.run = r.Run
	c.load()
	if c.spec.Kind == TCPCRR {
		c.active = c.connectLoop(c.server)
	}
	return nil
}

// dial makes a TCP connection that begins with h. It is in socks, with a timeout.
func (c *client) dial(h header) (int, error) {
	sa, family := sockaddr(c.server)
	fd, err := newSocket(family, unix.SOCK_STREAM, timeout(stepTimeout))
	if err != nil {
		return -1, err
	}
	if !c.socks.add(fd) {
		return -1, errors.Join(context.Canceled, unix.Close(fd))
	}
	if err := connect(fd, sa); err != nil {
		c.socks.close(fd)
		return -1, fmt.Errorf("connect to the netload server: %w", err)
	}
	var b [headerLen]byte
	h.put(b[:])
	if err := writeAll(fd, b[:]); err != nil {
		c.socks.close(fd)
		return -1, fmt.Errorf("greet the netload server: %w", err)
	}
	return fd, nil
}

// connectFlows makes the flows' sockets.
func (c *client) connectFlows() error {
	if c.spec.Kind == TCPCRR {
		return nil
	}
	for i := range c.flows {
		fd, err := c.connectFlow(i)
		if err != nil {
			return fmt.Errorf("connect flow %d: %w", i, err)
		}
		if !c.attach(i, fd) {
			return errors.Join(context.Canceled, unix.Close(fd))
		}
	}
	return nil
}

func (c *client) connectFlow(i int) (int, error) {
	if c.spec.Kind.udp() {
		_, family := sockaddr(c.server)
		opts := []func(int) error{connectTo(c.server)}
		if c.spec.Kind == UDPRR {
			opts = append(opts, timeout(replyTimeout))
		}
		return newSocket(family, unix.SOCK_DGRAM, opts...)
	}
	fd, err := c.dial(header{role: roleData, flow: uint8(i), run: c.run})
	if err != nil {
		return -1, err
	}
	c.socks.forget(fd)
	err = timeout(0)(fd)
	if err == nil && c.spec.Kind == TCPRR {
		err = flag(unix.IPPROTO_TCP, unix.TCP_NODELAY)(fd)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// ready waits until the server has all flows. Datagrams that greet it may get lost.
func (c *client) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, attachTimeout, errors.New("not all flows have reached the server"))
	defer cancel()
	missing := make([]int, len(c.flows))
	for i := range missing {
		missing[i] = i
	}
	for {
		if c.spec.Kind.udp() {
			c.greet(missing)
		}
		r, err := c.ask(request{Op: opReady}, stepTimeout)
		switch {
		case err != nil:
			return err
		case len(r.Missing) == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait %s for flows %v of %s on port %d: %w", attachTimeout, r.Missing, c.spec.Kind,
				c.server.Port(), context.Cause(ctx))
		}
		missing = r.Missing
	}
}

// greet sends the greetings of flows.
func (c *client) greet(flows []int) {
	var b [datagramLen]byte
	for _, i := range flows {
		if i < 0 || i >= len(c.flows) {
			continue
		}
		datagram{run: c.run, seq: uint64(i)}.put(b[:])
		_ = writeDatagram(c.flows[i].fd, b[:]) // the server says what is missing
	}
}

// ask asks the server for a step and waits for its reply.
func (c *client) ask(r request, wait time.Duration, meanwhile ...func()) (reply, error) {
	if err := c.line.send(r); err != nil {
		return reply{}, fmt.Errorf("ask for %s: %w", r.Op, err)
	}
	for _, f := range meanwhile {
		f()
	}
	b, err := c.line.next(wait)
	if err != nil {
		return reply{}, fmt.Errorf("wait for the server's %s: %w", r.Op, err)
	}
	var answer reply
	if err := json.Unmarshal(b, &answer); err != nil {
		return reply{}, fmt.Errorf("decode the server's %s: %w", r.Op, err)
	}
	if answer.Error != "" {
		return reply{}, fmt.Errorf("server at %s: %s", r.Op, answer.Error)
	}
	return answer, nil
}

// hangUp ends what is on and closes all sockets.
func (c *client) hangUp() {
	c.close()
	if c.line != nil {
		c.socks.close(c.line.fd)
	}
}
