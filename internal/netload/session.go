package netload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// session is a client's control connection at the server. Its steps are in
// the order of the ops.
type session struct {
	s    *Server
	line *line
	run  *served

	expires  time.Time // the run does then, whatever its client does
	begun    bool
	measured bool
	observed func() json.RawMessage // ends the observation that is on, or nil
	start    time.Time              // of the clock
}

// control serves a client until its run is over or it goes away.
func (s *Server) control(ctx context.Context, fd int) {
	c := &session{s: s, line: newLine(fd, maxRequest)}
	defer c.over()
	for wait := stepTimeout; ; {
		b, err := c.line.next(wait)
		if err != nil {
			if c.run != nil && !s.socks.isDown() {
				s.log.Warn("run ended early", "run", c.run.run, "err", err)
			}
			return
		}
		r, err := c.serve(ctx, b)
		if err != nil {
			r = reply{Error: err.Error()}
		}
		if sendErr := c.line.send(r); sendErr != nil || err != nil || c.run == nil {
			return
		}
		wait = time.Until(c.expires)
	}
}

// over ends what the client has left on.
func (c *session) over() {
	c.observe()
	if c.run != nil {
		c.s.drop(c.run)
	}
}

func (c *session) serve(ctx context.Context, b []byte) (reply, error) {
	r, err := parseRequest(b)
	if err != nil {
		return reply{}, err
	}
	if (c.run == nil) != (r.Op == opOpen) {
		return reply{}, fmt.Errorf("%w: %s before or after open", errRequest, r.Op)
	}
	switch r.Op {
	case opOpen:
		return c.open(*r.Spec)
	case opReady:
		return c.ready()
	case opBegin:
		return reply{}, c.begin(r)
	case opClose:
		c.over()
		c.run = nil
		return reply{}, nil
	}
	if !c.begun {
		return reply{}, fmt.Errorf("%w: %s before begin", errRequest, r.Op)
	}
	return c.step(ctx, r)
}

// step does what is done within a phase.
func (c *session) step(ctx context.Context, r request) (reply, error) {
	switch r.Op {
	case opGo:
		return reply{}, c.launch()
	case opFinish:
		return c.finish(ctx)
	case opDrain:
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		err := c.run.drain(ctx, r.Sent)
		return reply{Received: c.run.received()}, err
	default:
		return c.end(ctx)
	}
}

func (c *session) open(spec Spec) (reply, error) {
	local, err := localAddr(c.line.fd)
	if err != nil {
		return reply{}, err
	}
	peer, err := peerAddr(c.line.fd)
	if err != nil {
		return reply{}, err
	}
	if c.run, err = c.s.newRun(spec.withDefaults(), local.Addr(), peer.Addr().Unmap()); err != nil {
		return reply{}, err
	}
	c.expires = time.Now().Add(c.run.spec.total() + runSlack)
	c.s.log.Debug("run", "run", c.run.run, "kind", spec.Kind, "size", spec.Size, "flows", spec.Flows)
	return reply{Run: c.run.run}, nil
}

// ready waits a moment for flows that are on their way.
func (c *session) ready() (reply, error) {
	t := time.NewTimer(attachPoll)
	defer t.Stop()
	for {
		missing, changed := c.run.missing()
		if len(missing) == 0 {
			return reply{}, nil
		}
		select {
		case <-changed:
		case <-t.C:
			return reply{Missing: missing}, nil
		}
	}
}

func (c *session) begin(r request) error {
	if missing, _ := c.run.missing(); len(missing) > 0 {
		return fmt.Errorf("%w: begin without flows %v", errRequest, missing)
	}
	if c.begun && (c.observed != nil || !has(c.run.launched)) {
		return fmt.Errorf("%w: begin before the end of the phase before", errRequest)
	}
	c.begun, c.measured = true, r.Measured
	c.run.begin(r.Phase)
	if c.measured && c.s.opts.Observe != nil {
		c.observed = c.s.opts.Observe()
	}
	c.start = time.Now()
	return nil
}

func (c *session) launch() error {
	if !has(c.run.launched) {
		return fmt.Errorf("%w: go comes twice", errRequest)
	}
	var count uint64
	if c.measured {
		count = uint64(c.run.spec.Count)
	}
	c.start = time.Now()
	c.run.launch(count)
	return nil
}

// finish waits until the server's count of messages is sent.
func (c *session) finish(ctx context.Context) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.run.spec.Duration)
	defer cancel()
	err := c.run.ended(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errBound(c.run.spec)
	}
	return reply{Sent: c.run.sent()}, err
}

func (c *session) end(ctx context.Context) (reply, error) {
	r := reply{Elapsed: time.Since(c.start), Received: c.run.received()}
	c.run.halt()
	r.Observed = c.observe()
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := c.run.ended(ctx)
	r.Sent = c.run.sent()
	return r, err
}

// observe ends the observation, if one is on.
func (c *session) observe() json.RawMessage {
	if c.observed == nil {
		return nil
	}
	defer func() { c.observed = nil }()
	return fitting(c.observed(), maxObserved)
}

// fitting returns an observation that fits into a line, and is JSON.
func fitting(b json.RawMessage, most int) json.RawMessage {
	switch {
	case len(b) == 0:
		return nil
	case len(b) > most:
		return json.RawMessage(fmt.Sprintf(`{"error":"the observation has %d bytes, more than %d"}`, len(b), most))
	case !json.Valid(b):
		return json.RawMessage(`{"error":"the observation is no JSON"}`)
	}
	return b
}

// has is true when c is closed, or has a value, which it takes.
func has(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// errBound is what a run that counts messages ends with when it takes too long.
func errBound(s Spec) error {
	return fmt.Errorf("%d messages a flow took longer than %s: give a longer duration or a smaller count", s.Count, s.Duration)
}
