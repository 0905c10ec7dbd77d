package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Config says how an [Overlay] tunnels.
type Config struct {
	// Local is the underlay's address of this hypervisor, required. Those of the
	// others are of the same family.
	Local netip.Addr
	Port  uint16       // of UDP, the same everywhere; 0: [vnic.VXLANPort]
	Log   *slog.Logger // required
}

// Overlay programs the VXLAN networks of one network namespace. It is safe for
// concurrent use. What is done for one network doesn't wait for others.
type Overlay struct {
	cfg     Config
	conn    *rtnl.Conn
	lists   *rtnl.Conn // for long lists, which others don't wait for
	monitor *rtnl.EntryMonitor

	cancel context.CancelFunc
	tasks  sync.WaitGroup
	wake   chan struct{} // has one when a network has suspects

	mu       sync.Mutex // guards what follows; taken after any network's work
	networks map[uint32]*network
	places   map[int]place // by index of link
	stats    Stats
}

// Stats counts since [New].
type Stats struct {
	// Drift is what the monitor and [Overlay.Reconcile] found otherwise than it had
	// been declared, and repaired.
	Drift Drift
	// Overruns is how often the kernel had to drop news, so that all was compared.
	Overruns uint64
}

// Drift counts entries of the kernel's tables that were repaired.
type Drift struct {
	Missing int // were not there
	Wrong   int // led elsewhere, or would not have lasted
	Foreign int // were not declared, and have been removed
}

// Sum returns all that was repaired.
func (d Drift) Sum() int { return d.Missing + d.Wrong + d.Foreign }

func (d *Drift) add(e Drift) {
	d.Missing += e.Missing
	d.Wrong += e.Wrong
	d.Foreign += e.Foreign
}

// place is what a link is to a network.
type place struct {
	*network
	port bool // its VXLAN link, not its bridge
}

// New returns the overlay of the calling thread's network namespace. It changes nothing
// until it is told of a network.
func New(cfg Config) (*Overlay, error) {
	if !cfg.Local.IsValid() || cfg.Local.IsUnspecified() || cfg.Local.IsMulticast() || cfg.Local.Zone() != "" {
		return nil, fmt.Errorf("open overlay: local address %q is no host's: %w: give this hypervisor's address in the underlay", cfg.Local, vnic.ErrInvalid)
	}
	cfg.Local = cfg.Local.Unmap()
	if cfg.Port == 0 {
		cfg.Port = vnic.VXLANPort
	}
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, fmt.Errorf("open overlay: %w", err)
	}
	lists, err := rtnl.Dial()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open overlay: %w", err), conn.Close())
	}
	monitor, err := rtnl.NewEntryMonitor()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open overlay: %w", err), conn.Close(), lists.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &Overlay{
		cfg: cfg, conn: conn, lists: lists, monitor: monitor, cancel: cancel, wake: make(chan struct{}, 1),
		networks: map[uint32]*network{}, places: map[int]place{},
	}
	o.tasks.Go(o.listen)
	o.tasks.Go(func() { o.repairs(ctx) })
	return o, nil
}

// Close stops the monitor. What is in the kernel stays and carries traffic on. It is
// called once, when no other call is under way.
func (o *Overlay) Close() error {
	o.cancel()
	err := o.monitor.Close()
	o.tasks.Wait()
	return errors.Join(err, o.conn.Close(), o.lists.Close())
}

// Stats returns the counts so far.
func (o *Overlay) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// count adds to the drift that was repaired.
func (o *Overlay) count(d Drift) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Drift.add(d)
}
