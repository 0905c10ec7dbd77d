// Package bench is the guest's part of `brfuse bench`: it makes places to measure
// in, and runs the load's server and client there.
//
// A place is a process of its own, the worker, which the agent starts of its own
// program: in the VM's first namespace, or in a new one that nobody else has. So
// the agent does not share its scheduler with the load, a place ends with its
// process, and no namespace has to be mounted. The worker ends when the agent does,
// for it reads the agent's orders from a pipe. What a place has outside of its
// namespace, the bridge and the rules of NAT, is written down in a file before it is
// made, and removed by the next agent when one dies.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// Topologies of places.
const (
	Native = "native" // the VM's first namespace
	NAT    = "nat"    // a pod behind veth, bridge and NAT, as Docker has them
	Fused  = "fused"  // a pod's namespace, which a vNIC may be given to
)

// DefaultRecord is the file that remembers what an agent has to remove that died.
const DefaultRecord = "/run/brfuse/bench.json"

// Config sets up a [Bench]. Its zero value is usable.
type Config struct {
	// Record is the file of what has to be removed after a crash. Default:
	// [DefaultRecord].
	Record string
	// Worker is the program of workers with its arguments; it has to call [Work].
	// Default: this program with [WorkerArg].
	Worker []string
	// Log gets what is worth knowing. Default: nothing is logged.
	Log *slog.Logger
}

// Order asks for a place.
type Order struct {
	// ID names the place: up to 32 letters, digits and dashes.
	ID string
	// Topology is one of [Native], [NAT] and [Fused].
	Topology string
	// Own is an address of the VM's first namespace: a pod behind [NAT] leaves by, and
	// is published on, the NIC that has it. Default: the NIC by which Peer is reached.
	Own, Peer netip.Addr
}

// Check returns what is wrong with o as a [vnic.ErrInvalid].
func (o Order) Check() error {
	if err := checkID(o.ID); err != nil {
		return err
	}
	switch o.Topology {
	case Native, Fused:
		return nil
	case NAT:
		if !o.Own.Is4() && !o.Peer.Is4() {
			return fmt.Errorf("nat from %q to %q: neither is an IPv4 address: %w", o.Own, o.Peer, vnic.ErrInvalid)
		}
		return nil
	}
	return fmt.Errorf("topology %.64q is none of native, nat and fused: %w", o.Topology, vnic.ErrInvalid)
}

const maxID = 32

func checkID(id string) error {
	const may = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if id == "" || len(id) > maxID || strings.Trim(id, may) != "" {
		return fmt.Errorf("bench id %.64q: give up to %d letters, digits and dashes: %w", id, maxID, vnic.ErrInvalid)
	}
	return nil
}

// Place is where it is measured.
type Place struct {
	// Netns is the path of the pod's namespace; empty: the VM's first one.
	Netns string
	// Port is for the server, and the same that NAT publishes.
	Port uint16
	// Addresses are those of the first namespace by which other machines may reach it.
	Addresses []netip.Addr
}

// Cost is what a guest spent while it was measured.
type Cost struct {
	Elapsed                    time.Duration
	User, System, Softirq, IRQ time.Duration // of all CPUs
	Retransmits                uint64        // TCP segments
	Drops                      map[string]uint64
}

// Result is what was measured.
type Result struct {
	Elapsed              time.Duration
	Sent, Received, Lost uint64 // messages
	Bytes                uint64 // of payload received
	Latency              string // an HDR histogram of nanoseconds as its library encodes it; empty: none
	Client, Server       Cost
}

// Bench has the guest's place to measure in: one at a time. It is safe for
// concurrent use.
type Bench struct {
	cfg Config

	mu    sync.Mutex // held while a place is made or removed; guards place
	place *place

	find sync.Mutex // guards open; never held for long
	open *place     // what place is, once it is made
}

// New returns a Bench, when it has removed what an agent left that died. If that
// fails it is logged, and tried again by Open.
func New(ctx context.Context, cfg Config) *Bench {
	if cfg.Record == "" {
		cfg.Record = DefaultRecord
	}
	if len(cfg.Worker) == 0 {
		cfg.Worker = []string{"/proc/self/exe", WorkerArg}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bench{cfg: cfg}
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	if err := b.removeRecorded(ctx); err != nil {
		cfg.Log.Error("remove what a bench left", "error", err)
	}
	return b
}

// Open makes a place. To open the same again returns it; while there is another
// one, it is a [vnic.ErrInUse].
func (b *Bench) Open(ctx context.Context, o Order) (Place, error) {
	if err := o.Check(); err != nil {
		return Place{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.place != nil && b.place.order == o:
		return b.place.told, nil
	case b.place != nil:
		return Place{}, fmt.Errorf("open bench %s: bench %s is under way in this vm, until it ends or brfused or brfuse-agent is restarted: %w", o.ID, b.place.order.ID, vnic.ErrInUse)
	}
	p, err := b.make(ctx, o)
	if err != nil {
		return Place{}, fmt.Errorf("open bench %s, %s: %w", o.ID, o.Topology, err)
	}
	b.place = p
	b.show(p)
	b.cfg.Log.Info("bench opened", "id", o.ID, "topology", o.Topology, "netns", p.told.Netns, "port", p.told.Port)
	return p.told, nil
}

// show makes a place one that is found, or nil none.
func (b *Bench) show(p *place) {
	b.find.Lock()
	defer b.find.Unlock()
	b.open = p
}

// found returns the open place of an id, or a [vnic.ErrInvalid].
func (b *Bench) found(id string) (*place, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	b.find.Lock()
	defer b.find.Unlock()
	if b.open == nil || b.open.order.ID != id {
		return nil, fmt.Errorf("bench %s is not open in this vm: %w", id, vnic.ErrInvalid)
	}
	return b.open, nil
}

// Serve starts the server on the place's port, unless it is there, and returns the
// port.
func (b *Bench) Serve(ctx context.Context, id string) (uint16, error) {
	p, err := b.found(id)
	if err != nil {
		return 0, err
	}
	if err := p.worker.serve(ctx, p.told.Port); err != nil {
		return 0, fmt.Errorf("bench %s: serve port %d: %w", id, p.told.Port, err)
	}
	return p.told.Port, nil
}

// maxReach is how many addresses are tried at once.
const maxReach = 16

// Reach returns which addresses take connections from the place, in order. The
// guest's own are none of them: what they reach is not the peer.
func (b *Bench) Reach(ctx context.Context, id string, to []netip.AddrPort) ([]netip.AddrPort, error) {
	p, err := b.found(id)
	if err != nil {
		return nil, err
	}
	if len(to) > maxReach {
		return nil, fmt.Errorf("%d addresses to try are more than %d: %w", len(to), maxReach, vnic.ErrInvalid)
	}
	return p.worker.reach(ctx, to)
}

// Run loads the server at an address from the place.
func (b *Bench) Run(ctx context.Context, id string, to netip.AddrPort, spec netload.Spec) (Result, error) {
	p, err := b.found(id)
	if err != nil {
		return Result{}, err
	}
	if err := spec.Check(); err != nil {
		return Result{}, fmt.Errorf("%w: %w", err, vnic.ErrInvalid)
	}
	r, err := p.worker.run(ctx, to, spec)
	if err != nil {
		return Result{}, fmt.Errorf("bench %s: load %s with %s: %w", id, to, spec.Kind, err)
	}
	return r, nil
}

// Close removes a place and ends what runs in it. It succeeds when there is none.
func (b *Bench) Close(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	return b.close(ctx, func(p *place) bool { return p.order.ID == id })
}

// CloseAll removes the place, if there is one.
func (b *Bench) CloseAll(ctx context.Context) error {
	return b.close(ctx, func(*place) bool { return true })
}

func (b *Bench) close(ctx context.Context, which func(*place) bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.place
	if p == nil || !which(p) {
		return nil
	}
	b.show(nil)
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	if err := b.remove(ctx, p); err != nil {
		return fmt.Errorf("close bench %s: %w", p.order.ID, err) // place stays, for the next try
	}
	b.place = nil
	b.cfg.Log.Info("bench closed", "id", p.order.ID)
	return nil
}

// downLimit bounds the removal of a place.
const downLimit = 20 * time.Second

// errEnded is returned when the worker ended under a call.
var errEnded = errors.New("the process that measures has ended")
