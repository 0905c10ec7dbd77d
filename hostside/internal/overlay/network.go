package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Network is one that spans hypervisors.
type Network struct {
	Name   string
	Bridge string // of the network here, which package port makes
	VNI    uint32 // the network's number, the same everywhere: 1 to 1<<24 - 1
	MTU    int    // bytes, of the pods' links; see [Overlay.MTU]
}

// Link returns the name of the network's VXLAN link.
func (n Network) Link() string { return linkName(n.VNI) }

// network is what is kept of a network.
type network struct {
	Network
	work   sync.Mutex // held while the kernel's tables are compared or changed; guards what follows
	gone   bool       // RemoveNetwork has been called
	port   int        // index of the VXLAN link; 0: none yet
	bridge int        // index of the bridge
	table  table

	suspects suspects
}

const (
	prefix      = "bfx-"
	aliasPrefix = "brfuse overlay "
	kindVXLAN   = "vxlan"
	ttl         = 64 // of the tunnel's packets
)

func linkName(vni uint32) string { return prefix + strconv.FormatUint(uint64(vni), 10) }

// vniOf returns the VNI of a VXLAN link of ours.
func vniOf(t rtnl.Tunneler) (vni uint32, ok bool) {
	digits, ok := strings.CutPrefix(t.Name, prefix)
	n, err := strconv.ParseUint(digits, 10, 24)
	return uint32(n), ok && err == nil && t.Kind == kindVXLAN && linkName(uint32(n)) == t.Name
}

// SetNetwork makes sure that the network's VXLAN link is there, set as it should be, and
// a port of its bridge. It may be repeated, also by the next daemon: what is right stays
// untouched, with all its entries. A link that can't be set right is made anew; the
// entries that were declared since [New] are then declared again. Another VXLAN link
// with that VNI and port, or a link of that name that is no VXLAN link, is a
// [vnic.ErrConflict].
func (o *Overlay) SetNetwork(ctx context.Context, n Network) error {
	if n.VNI == 0 || n.VNI >= 1<<24 || n.Bridge == "" || n.MTU <= 0 {
		return fmt.Errorf("set overlay network %s: vni %d, bridge %q, mtu %d: %w", n.Name, n.VNI, n.Bridge, n.MTU, vnic.ErrInvalid)
	}
	o.mu.Lock()
	known := o.networks[n.VNI]
	if known == nil {
		known = &network{table: table{remotes: map[vnic.MAC]Remote{}, owners: map[netip.Addr]vnic.MAC{}}}
		o.networks[n.VNI] = known
	}
	o.mu.Unlock()
	known.work.Lock()
	defer known.work.Unlock()
	if known.gone {
		return fmt.Errorf("set overlay network %s: it is being removed: %w; try again", n.Name, vnic.ErrInUse)
	}
	known.Network = n
	if _, err := o.restore(ctx, known); err != nil {
		if known.port == 0 { // it has never been there
			known.gone = true
			o.forget(known, n.VNI)
		}
		return fmt.Errorf("set overlay network %s: %w", n.Name, err)
	}
	return nil
}

// RemoveNetwork removes the VXLAN link of that VNI with its entries, and the permanent
// neighbours of its bridge, which stays. It need not have been set since [New]. One that
// is gone is no error.
func (o *Overlay) RemoveNetwork(ctx context.Context, vni uint32) error {
	o.mu.Lock()
	n := o.networks[vni]
	o.mu.Unlock()
	if n == nil {
		n = &network{}
	}
	n.work.Lock()
	defer n.work.Unlock()
	if err := o.remove(ctx, vni); err != nil {
		return fmt.Errorf("remove overlay network %d: %w", vni, err)
	}
	n.gone = true
	o.forget(n, vni)
	return nil
}

// remove takes the link last: it tells the next daemon that there is something to remove.
func (o *Overlay) remove(ctx context.Context, vni uint32) error {
	var t rtnl.Tunneler
	if err := o.conn.Do(rtnl.GetTunneler(&t, linkName(vni)).Tolerate(unix.ENODEV)); err != nil {
		return err
	}
	if _, ours := vniOf(t); !ours {
		return nil
	}
	if t.Master != 0 {
		// The wanted table is empty and whole.
		w := writer{conn: o.conn, lists: o.lists, port: t.Index, bridge: t.Master, table: &table{known: true}}
		if err := w.listNeighbours(); err != nil {
			return err
		}
		for a := range w.have.neighbours {
			w.neighbour(ctx, a)
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	return o.conn.Do(rtnl.DelLink(t.Index).Tolerate(unix.ENODEV))
}

// Networks returns the networks that have a VXLAN link here, whoever made it and whether
// or not they have been set since [New].
func (o *Overlay) Networks(context.Context) ([]Network, error) {
	var found []rtnl.Tunneler
	var links []rtnl.Link
	for _, r := range []rtnl.Request{rtnl.GetTunnelers(&found), rtnl.GetLinks(&links)} {
		if err := o.conn.Do(r); err != nil { // one list at a time
			return nil, fmt.Errorf("list overlay networks: %w", err)
		}
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
	}
	var networks []Network
	for _, t := range found {
		if vni, ok := vniOf(t); ok {
			name, _ := strings.CutPrefix(t.Alias, aliasPrefix)
			networks = append(networks, Network{Name: name, Bridge: names[t.Master], VNI: vni, MTU: t.MTU})
		}
	}
	return networks, nil
}

// use finds a network that has been set and takes its work.
func (o *Overlay) use(vni uint32) (*network, error) {
	o.mu.Lock()
	n := o.networks[vni]
	o.mu.Unlock()
	if n != nil {
		n.work.Lock()
		if !n.gone {
			return n, nil
		}
		n.work.Unlock()
	}
	return nil, fmt.Errorf("overlay network %d: %w; set it first", vni, vnic.ErrUnknownNetwork)
}

// forget drops a network that has gone. The caller holds its work.
func (o *Overlay) forget(n *network, vni uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.networks[vni] == n {
		delete(o.networks, vni)
	}
	o.unplaceLocked(n)
}

func (o *Overlay) unplaceLocked(n *network) {
	for i, p := range o.places {
		if p.network == n {
			delete(o.places, i)
		}
	}
}

// place notes the links of a network. The caller holds its work.
func (o *Overlay) place(n *network, port, bridge int) {
	if n.port == port && n.bridge == bridge {
		return
	}
	n.port, n.bridge = port, bridge
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unplaceLocked(n)
	o.places[port], o.places[bridge] = place{n, true}, place{n, false}
}

// errNoBridge says what to do about a bridge that isn't there.
func errNoBridge(n Network, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the bridge of network %s is gone; create the network again", err, n.Name)
	}
	return err
}
