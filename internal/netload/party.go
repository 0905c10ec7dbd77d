package netload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// party is one end of a run: its flows and the loops over them.
//
// Active loops send. They run from launch until halt or until they have sent
// what they should. Passive loops receive, from attach until close.
type party struct {
	spec   Spec
	run    runID
	within func(fn func() error) error
	socks  sockets

	active  func(f *flow, count uint64) error // nil: none
	passive func(f *flow) error               // nil: none

	stop  atomic.Bool   // the active loops shall end
	phase atomic.Uint32 // what datagrams have to carry

	mu      sync.Mutex // guards attaching
	flows   []*flow
	closed  bool
	changed chan struct{} // closed when a flow is attached

	launched   chan struct{} // closed when the active loops have ended; the coordinator's
	background sync.WaitGroup

	broken chan struct{} // closed after why is set
	once   sync.Once
	why    error
}

func newParty(spec Spec, run runID, within func(func() error) error) *party {
	if within == nil {
		within = func(fn func() error) error { return fn() }
	}
	p := &party{spec: spec, run: run, within: within, broken: make(chan struct{}), launched: make(chan struct{}), changed: make(chan struct{})}
	close(p.launched)
	for range spec.Flows {
		p.flows = append(p.flows, newFlow())
	}
	return p
}

// attach gives a flow its socket and starts its passive loop. When it is
// false the socket is still the caller's.
func (p *party) attach(i, fd int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || i >= len(p.flows) || p.flows[i].fd >= 0 || !p.socks.add(fd) {
		return false
	}
	f := p.flows[i]
	f.fd = fd
	close(p.changed)
	p.changed = make(chan struct{})
	if p.passive != nil {
		p.background.Go(func() {
			if err := p.passive(f); err != nil {
				p.fail(fmt.Errorf("receive on flow %d: %w", i, err))
			}
		})
	}
	return true
}

func (p *party) attached(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flows[i].fd >= 0
}

// missing returns the flows without a socket, and what tells that they have changed.
func (p *party) missing() ([]int, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var m []int
	for i, f := range p.flows {
		if f.fd < 0 {
			m = append(m, i)
		}
	}
	return m, p.changed
}

// begin readies the flows for a phase.
func (p *party) begin(phase uint8) {
	p.phase.Store(uint32(phase))
	p.stop.Store(false)
	for _, f := range p.flows {
		f.reset()
		if p.active != nil && !p.spec.Kind.stream() {
			f.latency = NewHistogram()
		}
	}
}

// launch starts the active loops. With count 0 they run until halt.
func (p *party) launch(count uint64) {
	if p.active == nil {
		return
	}
	var loops sync.WaitGroup
	for i, f := range p.flows {
		loops.Go(func() {
			if err := p.active(f, count); err != nil {
				p.fail(fmt.Errorf("send on flow %d: %w", i, err))
			}
		})
	}
	done := make(chan struct{})
	p.launched = done
	p.background.Go(func() {
		loops.Wait()
		close(done)
	})
}

// halt tells the active loops to end. They do after the message they are at.
func (p *party) halt() { p.stop.Store(true) }

// ended waits until the active loops have ended.
func (p *party) ended(ctx context.Context) error {
	return p.await(ctx, p.launched, "the senders to end")
}

func (p *party) await(ctx context.Context, done <-chan struct{}, what string) error {
	select {
	case <-done:
		select {
		case <-p.broken: // a loop also ends when it breaks
			return p.why
		default:
			return nil
		}
	case <-p.broken:
		return p.why
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
	}
}

// sent returns what each flow has sent, as its peer counts it.
func (p *party) sent() []uint64 {
	n := make([]uint64, len(p.flows))
	for i, f := range p.flows {
		n[i] = f.sent.Load()
		if p.spec.Kind == TCPStream {
			n[i] *= uint64(p.spec.Size)
		}
	}
	return n
}

// received returns what has been received over all flows.
func (p *party) received() uint64 {
	var n uint64
	for _, f := range p.flows {
		n += f.received.Load()
	}
	return n
}

// drain waits until what the peer has sent is here; of datagrams, until all or
// no more of it comes.
func (p *party) drain(ctx context.Context, sent []uint64) error {
	if len(sent) != len(p.flows) {
		return fmt.Errorf("%w: drain of %d flows, of %d", errRequest, len(sent), len(p.flows))
	}
	for i, f := range p.flows {
		here := f.expect(sent[i])
		var err error
		if p.spec.Kind.udp() {
			err = p.settle(ctx, here, f)
		} else {
			err = p.await(ctx, here, fmt.Sprintf("the rest of flow %d", i))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle waits until all is here, or nothing has come for a while and nothing
// waits for its receiver, which may be short of CPU.
func (p *party) settle(ctx context.Context, here <-chan struct{}, f *flow) error {
	if has(here) {
		return nil
	}
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for last := f.received.Load(); ; {
		select {
		case <-here:
			return nil
		case <-p.broken:
			return p.why
		case <-ctx.Done():
			return fmt.Errorf("wait for the last datagrams: %w", context.Cause(ctx))
		case <-tick.C:
		}
		now := f.received.Load()
		if queued, err := unix.IoctlGetInt(f.fd, unix.SIOCINQ); now == last && (err != nil || queued == 0) {
			return nil
		}
		last = now
	}
}

// fail notes the first error of a loop. What follows a shutdown is none.
func (p *party) fail(err error) {
	if p.socks.isDown() {
		return
	}
	p.once.Do(func() {
		p.why = err
		close(p.broken)
	})
}

// close ends the loops, waits for them and closes the flows' sockets.
func (p *party) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.halt()
	p.socks.shutdown()
	p.background.Wait()
	for _, f := range p.flows {
		if f.fd >= 0 {
			p.socks.close(f.fd)
			f.fd = -1
		}
	}
}
