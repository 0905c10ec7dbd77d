package netload

import (
	"context"
	"errors"
	"time"
)

// plan is a phase.
type plan struct {
	number   uint8
	duration time.Duration // with count, its bound
	count    uint64        // 0: for duration
	measured bool
}

func (c *client) plan(number uint8) plan {
	if number == phaseWarmUp {
		return plan{number: number, duration: c.spec.WarmUp}
	}
	return plan{number: number, duration: c.spec.Duration, count: uint64(c.spec.Count), measured: true}
}

// measure does a phase: nothing is on its way before it and after it.
func (c *client) measure(ctx context.Context, p plan) (Result, error) {
	if _, err := c.ask(request{Op: opBegin, Phase: p.number, Measured: p.measured}, stepTimeout); err != nil {
		return Result{}, err
	}
	c.begin(p.number)
	r := Result{Spec: c.spec}
	observed := func() {}
	if p.measured && c.opts.Observe != nil {
		stop := c.opts.Observe()
		observed = func() { r.Local = fitting(stop(), maxObserved) }
	}
	start := time.Now()
	if _, err := c.ask(request{Op: opGo}, stepTimeout); err != nil {
		observed()
		return Result{}, err
	}
	if c.active != nil {
		start = time.Now()
	}
	c.launch(p.count)
	err := c.phase(ctx, p, &r, start, observed)
	return r, err
}

// phase lets the load run and ends it. It calls observed once.
func (c *client) phase(ctx context.Context, p plan, r *Result, start time.Time, observed func()) error {
	if p.count > 0 {
		return c.counted(ctx, p, r, start, observed)
	}
	if err := c.pass(ctx, p.duration); err != nil {
		observed()
		return err
	}
	c.halt()
	r.Elapsed = time.Since(start)
	here := c.received()
	end, err := c.ask(request{Op: opEnd}, drainTimeout, observed)
	if err != nil {
		return err
	}
	r.Remote = end.Observed
	if c.spec.Kind.stream() && c.active != nil { // received there
		r.Elapsed, here = end.Elapsed, end.Received
	}
	total, sent, err := c.rest(ctx, end.Sent)
	if err != nil {
		return err
	}
	c.fill(r, sent, here, total)
	return nil
}

// counted waits until all messages are where they should be, and ends the phase then.
func (c *client) counted(ctx context.Context, p plan, r *Result, start time.Time, observed func()) error {
	total, sent, err := c.all(ctx, p)
	r.Elapsed = time.Since(start)
	if err != nil {
		observed()
		return err
	}
	end, err := c.ask(request{Op: opEnd}, drainTimeout, observed)
	if err != nil {
		return err
	}
	r.Remote = end.Observed
	c.fill(r, sent, total, total)
	return nil
}

// all waits for the end of a phase that counts messages.
func (c *client) all(ctx context.Context, p plan) (total uint64, sent []uint64, err error) {
	if c.spec.Kind.stream() && c.active == nil {
		r, err := c.ask(request{Op: opFinish}, p.duration+stepTimeout)
		if err != nil {
			return 0, nil, err
		}
		return c.rest(ctx, r.Sent)
	}
	bound, cancel := context.WithTimeoutCause(ctx, p.duration, errBound(c.spec))
	defer cancel()
	if err := c.ended(bound); err != nil {
		return 0, nil, err
	}
	return c.rest(ctx, nil)
}

// rest waits until what is on its way has arrived, and returns how much has
// in all, and what was sent by flow. peer is what the server has sent.
func (c *client) rest(ctx context.Context, peer []uint64) (total uint64, sent []uint64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, errors.New("it takes too long"))
	defer cancel()
	if c.active == nil {
		err := c.drain(ctx, peer)
		return c.received(), peer, err
	}
	if err := c.ended(ctx); err != nil {
		return 0, nil, err
	}
	if !c.spec.Kind.stream() {
		return c.received(), c.sent(), nil
	}
	r, err := c.ask(request{Op: opDrain, Sent: c.sent()}, drainTimeout+stepTimeout)
	return r.Received, c.sent(), err
}

// pass waits for d.
func (c *client) pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.broken:
		return c.why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill writes the counts into r: of what was sent, here arrived in time and
// total in all. Bytes of a tcp_stream, else messages.
func (c *client) fill(r *Result, sent []uint64, here, total uint64) {
	total = max(total, here)
	unit := uint64(1)
	if c.spec.Kind == TCPStream {
		unit = uint64(c.spec.Size)
	}
	for _, n := range sent {
		r.Sent += n / unit
	}
	r.Received, r.Late = here/unit, (total-here)/unit
	r.Bytes = here / unit * uint64(c.spec.Size)
	if c.spec.Kind == TCPStream {
		r.Bytes = here
	}
	if c.spec.Kind.stream() {
		if r.Sent > r.Received+r.Late && c.spec.Kind == UDPStream {
			r.Lost = r.Sent - r.Received - r.Late
		}
		return
	}
	r.Latency = NewHistogram()
	for _, f := range c.flows {
		r.Late += f.late
		r.Lost += f.lost
		r.Latency.Merge(f.latency)
	}
}
