package fabric

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Overlay is the part of the host half that programs where stations are. Its methods
// are for networks that are in use; see [Fabric.Use].
type Overlay interface {
	// ReplaceStations declares all stations of a network that are behind other
	// hypervisors.
	ReplaceStations(ctx context.Context, network string, all []vnic.Station) error
	// SetStations declares some, in place of what was declared for their MACs.
	SetStations(ctx context.Context, network string, some []vnic.Station) error
	// RemoveStations takes back what was declared for MACs; that it was not is no error.
	RemoveStations(ctx context.Context, network string, macs []vnic.MAC) error
}

// Names serves the names of networks that are in use. For one network its methods are
// called one after the other.
type Names interface {
	// Serve begins to serve a network, or goes on with what has changed of it. It
	// returns false when names of such a network are not served.
	Serve(ctx context.Context, n vnic.Network) (bool, error)
	// Replace declares all pods of a network.
	Replace(network string, all []Named) error
	// Put declares one, in place of what was declared for its id.
	Put(network string, p Named) error
	// Delete takes one back.
	Delete(network string, id vnic.ID) error
	// Stop ends what Serve began; that it did not is no error.
	Stop(network string)
}

// Named is a pod's vNIC with the services that lead to it.
type Named struct {
	vnic.Endpoint
	Services []vnic.Service
}

// Services lead published ports to pods.
type Services interface {
	// SetServices declares all, in place of those before.
	SetServices(ctx context.Context, all []vnic.Backend) error
}

// Config says what a Fabric works with. What is nil is left out.
type Config struct {
	Store store.Store // required; all keys of it, not those of one hypervisor
	Self  string      // this hypervisor's name; empty when there is only this one
	// Underlay is this hypervisor's address. What is behind one of the other family is
	// left out: it can't be reached. Default: nothing is left out.
	Underlay netip.Addr
	Overlay  Overlay
	Names    Names
	Services Services
	// Changed is told of the network's record that was stored or is gone, in the order
	// of the commits, and of all there are after a restart or a gap. It must not block.
	Changed func(network string)
	// Needed is told which networks published services lead into. It must not block.
	Needed func(networks map[string]bool)
	// Log gets what happens. Default: nothing is logged.
	Log *slog.Logger
	// Resync is how often all is declared anew. Default: 5 minutes.
	Resync time.Duration
}

// pauses after a failure: the first, doubled each time, up to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	// applyLimit bounds one call of a half.
	applyLimit = 30 * time.Second
	// maxBatch is how many events are taken together.
	maxBatch = 4096
)

// Fabric follows the store for one hypervisor. It is safe for concurrent use. Make it
// with [Start].
type Fabric struct {
	cfg  Config
	stop context.CancelFunc
	done chan struct{}
	wake chan struct{} // has room for one: something is dirty

	mu    sync.Mutex
	state *state          // guarded by mu; nil until the store was read
	ready chan struct{}   // closed when state was first read
	used  map[string]*use // guarded by mu; networks that this hypervisor is in
	dirty bool            // guarded by mu; the services are to be declared
	last  map[string]bool // guarded by mu; what Needed was told
}

// use is a network that this hypervisor is in.
type use struct {
	overlay bool
	dirty   bool // guarded by Fabric.mu; all is to be declared anew

	mu    sync.Mutex // held while a half is told of it; taken before Fabric.mu
	named bool       // guarded by mu; its names are served
	gone  bool       // guarded by mu
}

// Start begins to follow the store, and returns without waiting. Close it.
func Start(cfg Config) *Fabric {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Resync = cmp.Or(cfg.Resync, 5*time.Minute)
	ctx, stop := context.WithCancel(context.Background())
	f := &Fabric{
		cfg: cfg, stop: stop, done: make(chan struct{}), wake: make(chan struct{}, 1),
		ready: make(chan struct{}), used: map[string]*use{},
	}
	var wg sync.WaitGroup
	wg.Go(func() { f.follow(ctx) })
	wg.Go(func() { f.repair(ctx) })
	go func() { wg.Wait(); close(f.done) }()
	return f
}

// Close ends it. What was declared stays.
func (f *Fabric) Close() error {
	f.stop()
	<-f.done
	return nil
}

// Use begins to keep a network's stations and names, which the host half has made
// by then, and returns when all that are known are declared.
func (f *Fabric) Use(ctx context.Context, n vnic.Network) error {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return fmt.Errorf("wait until the store was read: %w", ctx.Err())
	}
	f.mu.Lock()
	u := f.used[n.Name]
	if u == nil {
		u = &use{overlay: n.Kind == vnic.KindOverlay}
		f.used[n.Name] = u
	}
	u.dirty, f.dirty = true, true // services may lead there only now
	f.mu.Unlock()
	defer f.poke()
	if err := f.serve(ctx, n, u); err != nil {
		return err
	}
	return f.declare(ctx, n.Name, u)
}

// serve has a network's names served.
func (f *Fabric) serve(ctx context.Context, n vnic.Network, u *use) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f.cfg.Names == nil || u.gone {
		return nil
	}
	var err error
	if u.named, err = f.cfg.Names.Serve(ctx, n); err != nil {
		u.named = false
		return fmt.Errorf("serve names of network %s: %w", n.Name, err)
	}
	return nil
}

// Drop ends what Use began. The host half may remove the network then.
func (f *Fabric) Drop(network string) {
	f.mu.Lock()
	u := f.used[network]
	delete(f.used, network)
	f.mu.Unlock()
	if u == nil {
		return
	}
	u.mu.Lock() // a declaration that is under way ends first
	defer u.mu.Unlock()
	u.gone = true
	if u.named {
		f.cfg.Names.Stop(network)
	}
}

// Leased returns how many addresses of a network endpoints have, of all hypervisors.
func (f *Fabric) Leased(network string) (v4, v6 int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil || f.state.networks[network] == nil {
		return 0, 0
	}
	n := f.state.networks[network].leased
	return n[0], n[1]
}

// Holders returns which hypervisors have vNICs of a pod of that name, in order.
func (f *Fabric) Holders(pod string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return nil
	}
	found := map[string]bool{}
	for _, n := range f.state.networks {
		for _, e := range n.byID {
			if e.Pod == pod {
				found[e.Hypervisor] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// tellNeeded tells which networks services need, when that changed.
func (f *Fabric) tellNeeded() {
	if f.cfg.Needed == nil {
		return
	}
	f.mu.Lock()
	now := f.state.needed()
	same := f.last != nil && maps.Equal(now, f.last)
	f.last = now
	f.mu.Unlock()
	if !same {
		f.cfg.Needed(maps.Clone(now))
	}
}

// Ready returns how many pods a service leads to, of all hypervisors; of one that was
// written down just now, how many it is going to.
func (f *Fabric) Ready(s vnic.Service) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return 0
	}
	if known := f.state.services[s.Name]; known != nil && known.Equal(s) {
		return len(known.ready)
	}
	n := 0
	if network := f.state.networks[s.Network]; network != nil {
		for _, e := range network.byID {
			if e.Ready && s.Selects(e) {
				n++
			}
		}
	}
	return n
}
