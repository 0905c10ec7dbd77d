package hostside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/hostside/internal/libvirtvm"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm"
	"github.com/brfuse/brfuse/hostside/internal/queue"
	"github.com/brfuse/brfuse/hostside/internal/reserve"
	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Config says how a [Host] works. The zero value is ready to use.
type Config struct {
	// Log gets what happens. Default: [slog.Default].
	Log *slog.Logger
	// Underlay is this hypervisor's address between the hypervisors, which overlays
	// tunnel from. Default: networks can't be overlays.
	Underlay netip.Addr
}

// Host is the hypervisor's half of brfuse. It is safe for concurrent use: calls
// for one vNIC are made one after the other, and calls for several in parallel.
type Host struct {
	log       *slog.Logger
	dial      dialFunc
	links     *port.Links
	guard     *guard.Guard
	events    *queue.Queue[vnic.Event]
	watch     *linkWatch
	reserved  *reserve.Ports
	conntrack *rtnl.Conntrack
	overlay   *overlay.Overlay // nil without an underlay
	ids       keylock.Locks[vnic.ID]

	// life ends with Close. It is the Host's own and belongs to no call: the
	// connections to the VMs are kept in it.
	life context.Context
	stop context.CancelFunc

	mu       sync.Mutex // guards what follows; never held while waiting
	closed   bool
	vms      map[string]*vm
	networks map[string]vnic.Network
	canServe bool                      // the kernel has what services take
	stands   map[string][]netip.Prefix // the hypervisor's addresses in overlays, by network
	moving   map[string]bool           // VMs that are being moved
}

// dialFunc connects to a VM's hypervisor process.
type dialFunc func(context.Context, vnic.VM, *slog.Logger) (backend.VM, error)

// New returns a Host of the network namespace that the calling thread is in.
// Networks and ports that an earlier process left stay in force.
func New(cfg Config) (*Host, error) {
	return newHost(cfg, func(ctx context.Context, v vnic.VM, log *slog.Logger) (backend.VM, error) {
		if v.Libvirt != "" {
			return libvirtvm.Dial(ctx, v, log)
		}
		return qmpvm.Dial(ctx, v, log)
	})
}

func newHost(cfg Config, dial dialFunc) (*Host, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	links, err := port.New(cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	g, err := guard.Open(cfg.Log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open host: %w", err), links.Close())
	}
	conntrack, err := rtnl.NewConntrack()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open host: %w", err), g.Close(), links.Close())
	}
	var tunnels *overlay.Overlay
	if cfg.Underlay.IsValid() {
		if tunnels, err = overlay.New(overlay.Config{Local: cfg.Underlay, Log: cfg.Log}); err != nil {
			conntrack.Close()
			return nil, errors.Join(fmt.Errorf("open host: %w", err), g.Close(), links.Close())
		}
	}
	life, stop := context.WithCancel(context.Background())
	h := &Host{
		overlay: tunnels,
		log:     cfg.Log, dial: dial, links: links, guard: g, events: queue.New[vnic.Event](), life: life, stop: stop,
		reserved: reserve.New(cfg.Log, links.Inside), conntrack: conntrack,
		vms: make(map[string]*vm), networks: make(map[string]vnic.Network), stands: make(map[string][]netip.Prefix), moving: make(map[string]bool),
	}
	if h.watch, err = newLinkWatch(h); err != nil {
		stop()
		h.events.Drop()
		conntrack.Close()
		return nil, errors.Join(fmt.Errorf("open host: %w", err), closeOverlay(tunnels), g.Close(), links.Close())
	}
	h.reserveAgain(life)
	h.reserveServicesAgain(life)
	return h, nil
}

// Probe returns an [vnic.ErrUnsupported] that names what the kernel lacks for a
// Host's packet filter, with the remedy, or nil. It takes CAP_NET_ADMIN, changes
// nothing, and is about the calling thread's network namespace.
func Probe() error { return guard.Probe() }

// Events returns what happens to VMs and vNICs: [vnic.EventVMUp],
// [vnic.EventVMGone], [vnic.EventRemoved], and [vnic.EventAgentOff] when QEMU
// tells that the agent closed its port. EventVMUp also comes when someone else
// deleted taps of a VM or took them from their bridge. Events wait as long as it
// takes until they are read. The channel is closed by Close.
func (h *Host) Events() <-chan vnic.Event { return h.events.Out() }

// Close ends the connections to the VMs. Everything that is plugged stays, and
// ports stay published; only nobody keeps other programs from them.
// Calls that are under way must have returned.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	vms := h.vms
	h.vms = nil
	h.mu.Unlock()
	h.stop()
	for _, v := range vms {
		<-v.done
	}
	err := h.watch.close()
	h.events.Drop()
	h.reserved.Close()
	h.conntrack.Close()
	return errors.Join(err, closeOverlay(h.overlay), h.guard.Close(), h.links.Close())
}

func closeOverlay(o *overlay.Overlay) error {
	if o == nil {
		return nil
	}
	return o.Close()
}

// SetNetwork makes sure that the network is there: its bridge, the gateways'
// addresses on it, forwarding, masquerading; see [vnic.NetworkKind] for what kinds of
// networks have of that. It may be repeated, and then repairs what differs. A bridge of
// that name that is not brfuse's is a [vnic.ErrConflict]; a missing uplink,
// [vnic.ErrInvalid]; a kernel without what is needed, [vnic.ErrUnsupported].
func (h *Host) SetNetwork(ctx context.Context, n vnic.Network) error {
	n, err := n.Complete()
	if err != nil {
		return err
	}
	if err := h.links.SetNetwork(ctx, n, h.hostAddresses(n.Name)...); err != nil {
		return err
	}
	if err := h.guard.SetNetwork(ctx, n); err != nil {
		return err
	}
	if err := h.setOverlay(ctx, n); err != nil {
		return err
	}
	h.mu.Lock()
	_, known := h.networks[n.Name]
	h.networks[n.Name] = n
	h.mu.Unlock()
	if !known && n.Kind != vnic.KindMacvtap { // the warnings are about bridges
		h.warn(ctx, n)
	}
	return nil
}

func (h *Host) warn(ctx context.Context, n vnic.Network) {
	warnings, err := h.links.Warnings(ctx)
	if err != nil {
		h.log.Warn("check settings of the host", "network", n.Name, "error", err)
	}
	for _, w := range warnings {
		h.log.Warn(w, "network", n.Name)
	}
}

// RemoveNetwork removes what SetNetwork made. With ports in its bridge it is a
// [vnic.ErrInUse]. A network that is gone is no error. Name and bridge are all
// that n needs to have.
func (h *Host) RemoveNetwork(ctx context.Context, n vnic.Network) error {
	if n.Bridge == "" { // one of macvtaps has none of that name
		n.Bridge = vnic.BridgeName(n.Name)
	}
	if err := h.removeOverlay(ctx, n); err != nil {
		return err
	}
	if err := h.links.RemoveNetwork(ctx, n); err != nil {
		return err
	}
	if err := h.guard.RemoveNetwork(ctx, n.Name); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.networks, n.Name)
	return nil
}

// Networks returns the networks whose bridges are there and were made by
// brfuse, also by an earlier process: of each no more than its name and bridge.
func (h *Host) Networks(ctx context.Context) ([]vnic.Network, error) {
	networks, err := h.links.Networks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	return networks, nil
}

func (h *Host) network(name string) (vnic.Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.networks[name]
	if !ok {
		return n, fmt.Errorf("network %s: %w: create it first", name, vnic.ErrUnknownNetwork)
	}
	return n, nil
}

// Dropped returns how many packets from and to pods the host has dropped, by reason:
// "mac", "arp", "ipv4", "ipv6", "nd", "dhcp", "router", "redirect",
// "ethertype", "rate" for what is beyond a limit, "stray" for what a pod sent
// to the host beside its bridge, and "destination" for what was sent to a pod for an
// address that is not its own. Without networks and ports it is empty.
func (h *Host) Dropped(ctx context.Context) (map[string]uint64, error) {
	counts, err := h.guard.Counters(ctx)
	if err != nil {
		return nil, err
	}
	dropped := make(map[string]uint64, len(counts))
	for reason, n := range counts {
		dropped[string(reason)] = n.Packets
	}
	return dropped, nil
}
