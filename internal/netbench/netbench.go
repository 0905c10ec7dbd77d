// Package netbench is the daemon's part of `brfuse bench`: it measures the network
// between two VMs, for processes in the VMs and for pods, round by round.
//
// In each round, each topology is set up by the agents of both VMs, measured with
// each workload, and removed again, so that nothing of one is there while another is
// measured. Topologies take turns in being the first of a round.
package netbench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// Guests makes places to measure in, and measures there. *guestlink.Links is one;
// it bounds each call.
type Guests interface {
	BenchOpen(ctx context.Context, vm string, o guestlink.BenchOrder) (guestlink.BenchPlace, error)
	BenchServe(ctx context.Context, vm, id string) (uint16, error)
	BenchReach(ctx context.Context, vm, id string, to []netip.Addr, port uint16) ([]netip.Addr, error)
	BenchRun(ctx context.Context, vm, id string, to netip.AddrPort, spec netload.Spec) (guestlink.BenchResult, error)
	BenchClose(ctx context.Context, vm, id string) error
}

// Pods gives pods vNICs. *orchestrator.Orchestrator is one.
type Pods interface {
	Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error)
	Detach(ctx context.Context, id vnic.ID) (vnic.Attachment, error)
}

// Topologies.
const (
	Native = "native"
	NAT    = "nat"
	Fused  = "fused"
)

// Topologies returns all of them.
func Topologies() []string { return []string{Native, NAT, Fused} }

// Label is the label of attachments that a bench has made; its value is the bench's
// id. One that outlives its daemon is to be detached.
const Label = "brfuse.bench"

// Limits of a [Request].
const (
	MaxRounds    = 1000
	MaxWorkloads = 64
	MaxTime      = time.Minute
	MinTime      = 50 * time.Millisecond
)

// Request says what to measure.
type Request struct {
	// Server and Client are the VMs. Required.
	Server, Client string
	// Network is that of the fused pods. Required if they are measured.
	Network string
	// Topologies are measured in each round. Default: all.
	Topologies []string
	// Rounds is how many there are. Default: 5.
	Rounds int
	// Time is how long a sample is measured; a third of it is spent before, to warm
	// up. Default: 1 s.
	Time time.Duration
	// Workloads are measured in each topology. Default: [DefaultWorkloads].
	Workloads []Workload
}

// Complete returns r with its defaults filled in, or the first thing that is wrong
// with it as a [vnic.ErrInvalid].
func (r Request) Complete() (Request, error) {
	for _, vm := range []string{r.Server, r.Client} {
		if err := vnic.CheckVMName(vm); err != nil {
			return r, err
		}
	}
	if r.Server == r.Client {
		return r, fmt.Errorf("vm and peer are both %s; name two VMs: %w", r.Server, vnic.ErrInvalid)
	}
	if len(r.Topologies) == 0 {
		r.Topologies = Topologies()
	}
	for i, t := range r.Topologies {
		if !slices.Contains(Topologies(), t) {
			return r, fmt.Errorf("topology %.64q is none of %s: %w", t, strings.Join(Topologies(), ", "), vnic.ErrInvalid)
		}
		if slices.Contains(r.Topologies[:i], t) {
			return r, fmt.Errorf("topology %s is named twice: %w", t, vnic.ErrInvalid)
		}
	}
	if r.Rounds == 0 {
		r.Rounds = 5
	}
	if r.Time == 0 {
		r.Time = time.Second
	}
	if len(r.Workloads) == 0 {
		r.Workloads = DefaultWorkloads()
	}
	switch {
	case r.Rounds < 1 || r.Rounds > MaxRounds:
		return r, fmt.Errorf("rounds %d are not in 1-%d: %w", r.Rounds, MaxRounds, vnic.ErrInvalid)
	case r.Time < MinTime || r.Time > MaxTime:
		return r, fmt.Errorf("time %s is not in %s-%s: %w", r.Time, MinTime, MaxTime, vnic.ErrInvalid)
	case len(r.Workloads) > MaxWorkloads:
		return r, fmt.Errorf("%d workloads are more than %d: %w", len(r.Workloads), MaxWorkloads, vnic.ErrInvalid)
	}
	for i, w := range r.Workloads { // a round has one sample of each
		if slices.Contains(r.Workloads[:i], w) {
			return r, fmt.Errorf("workload %s is named twice: %w", w, vnic.ErrInvalid)
		}
	}
	return r, nil
}

// Samples is how many there will be.
func (r Request) Samples() int { return r.Rounds * len(r.Topologies) * len(r.Workloads) }

// Sample is what one load has measured. Its metrics are named as those of the
// benchmarks under bench/.
type Sample struct {
	Topology, Workload string
	Round              int // from 1
	Metrics            map[string]float64
	Drops              map[string]uint64 // packets, by "server:DEVICE" and "client:DEVICE"
	Latency            string            // an HDR histogram of nanoseconds, encoded; empty: none
}

// Watcher is told how far a bench is. Its methods are called one after the other.
type Watcher interface {
	// Step tells what is done now, after so many samples.
	Step(done int, what string) error
	Sample(s Sample) error
}

// Done tells what only the run has found out.
type Done struct {
	// NativeAddress is the server VM's, by which the client VM reached it. Zero when
	// none was needed.
	NativeAddress netip.Addr
}

// Bench measures between VMs: one bench at a time in each of them. It is safe for
// concurrent use. Make it with [New].
type Bench struct {
	guests Guests
	pods   Pods
	log    *slog.Logger

	mu   sync.Mutex      // guards busy
	busy map[string]bool // VMs that are measured
}

// New returns a Bench.
func New(guests Guests, pods Pods, log *slog.Logger) *Bench {
	return &Bench{guests: guests, pods: pods, log: log, busy: map[string]bool{}}
}

// closeLimit bounds each step of the removal of what a topology has in both VMs: to
// take the vNICs from the pods, and to end the places.
const closeLimit = 45 * time.Second

// Run measures and returns when all is removed that it made, also when ctx ends.
// A VM that is being measured is a [vnic.ErrInUse].
func (b *Bench) Run(ctx context.Context, req Request, w Watcher) (Done, error) {
	req, err := req.Complete()
	if err != nil {
		return Done{}, err
	}
	release, err := b.take(req.Server, req.Client)
	if err != nil {
		return Done{}, err
	}
	defer release()
	id, err := newID()
	if err != nil {
		return Done{}, err
	}
	r := &run{Bench: b, req: req, watch: w, id: id}
	b.log.Info("bench begins", "id", id, "server", req.Server, "client", req.Client, "topologies", req.Topologies, "samples", req.Samples())
	err = r.all(ctx)
	b.log.Info("bench ended", "id", id, "samples", r.samples, "error", err)
	return Done{NativeAddress: r.native}, err
}

// take keeps two VMs for one bench.
func (b *Bench) take(vms ...string) (release func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, vm := range vms {
		if b.busy[vm] {
			return nil, fmt.Errorf("vm %s is being measured by another bench; wait for its end: %w", vm, vnic.ErrInUse)
		}
	}
	for _, vm := range vms {
		b.busy[vm] = true
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, vm := range vms {
			delete(b.busy, vm)
		}
	}, nil
}

// newID returns a random id.
func newID() (string, error) {
	raw := make([]byte, 5)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return hex.EncodeToString(raw), nil
}

// run is one bench.
type run struct {
	*Bench
	req     Request
	watch   Watcher
	id      string
	native  netip.Addr // of the server VM
	samples int
}

func (r *run) all(ctx context.Context) error {
	if slices.Contains(r.req.Topologies, Native) || slices.Contains(r.req.Topologies, NAT) {
		if err := r.watch.Step(0, "look for an address of "+r.req.Server+" that "+r.req.Client+" reaches"); err != nil {
			return err
		}
		if err := r.findNative(ctx); err != nil {
			return err
		}
	}
	for round := range r.req.Rounds {
		for i := range r.req.Topologies {
			topology := r.req.Topologies[(i+round)%len(r.req.Topologies)]
			if err := r.measure(ctx, round+1, topology); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, topology, err)
			}
		}
	}
	return nil
}

// measure sets a topology up, measures all workloads in it, and removes it.
func (r *run) measure(ctx context.Context, round int, topology string) (err error) {
	if err := r.watch.Step(r.samples, fmt.Sprintf("round %d of %d: set up %s", round, r.req.Rounds, topology)); err != nil {
		return err
	}
	s := &setup{run: r, topology: topology}
	defer func() { err = errors.Join(err, s.down(context.WithoutCancel(ctx))) }()
	to, err := s.up(ctx)
	if err != nil {
		return err
	}
	for _, load := range r.req.Workloads {
		if err := r.watch.Step(r.samples, fmt.Sprintf("round %d of %d: %s, %s", round, r.req.Rounds, topology, load)); err != nil {
			return err
		}
		spec := load.spec(r.req.Time)
		res, err := r.guests.BenchRun(ctx, r.req.Client, r.id, to, spec)
		if err != nil {
			return fmt.Errorf("%s: %w", load, err)
		}
		sample, err := toSample(res, spec)
		if err != nil {
			return fmt.Errorf("%s: %w", load, err)
		}
		sample.Topology, sample.Workload, sample.Round = topology, load.String(), round
		if err := r.watch.Sample(sample); err != nil {
			return err
		}
		r.samples++
	}
	return nil
}
