package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// found is what the kernel has.
type found struct {
	tunnels    map[vnic.MAC]rtnl.Entry // of the VXLAN link
	ports      map[vnic.MAC]rtnl.Entry // of the bridge
	neighbours map[netip.Addr]rtnl.Entry
}

func (f *found) take(e rtnl.Entry) {
	if f.tunnels == nil {
		*f = found{map[vnic.MAC]rtnl.Entry{}, map[vnic.MAC]rtnl.Entry{}, map[netip.Addr]rtnl.Entry{}}
	}
	switch {
	case e.Addr.IsValid():
		f.neighbours[e.Addr] = e
	case e.Master != 0:
		f.ports[e.MAC] = e
	default:
		f.tunnels[e.MAC] = e
	}
}

// writer compares the kernel's entries with a table, and makes them alike. Its user holds
// the network's work, but for list.
type writer struct {
	conn, lists  *rtnl.Conn
	port, bridge int // indices of the VXLAN link and its bridge
	table        *table
	have         found
	drift        Drift
	taken        []vnic.MAC // are stations of other ports

	reqs  []rtnl.Request
	adds  map[vnic.MAC]int // entries of those that must be new in reqs
	again map[vnic.MAC]int // those of which some turned out not to be new
	err   error            // the first
}

// Sizes of messages. A chunk's answers and errors have to fit into a socket's buffer,
// and the answer to a question takes more of it.
const (
	writeChunk = 256
	askChunk   = 64
)

func (o *Overlay) newWriter(n *network) *writer {
	return &writer{conn: o.conn, lists: o.lists, port: n.port, bridge: n.bridge, table: &n.table}
}

// all makes everything right.
func (w *writer) all(ctx context.Context) error {
	if err := w.list(); err != nil {
		return err
	}
	w.each(func(mac vnic.MAC) { w.station(ctx, mac) }, func(a netip.Addr) { w.neighbour(ctx, a) })
	return w.finish(ctx)
}

// list reads what the kernel has. Of stations that takes the square of their number, with
// seconds for 100,000: the kernel starts anew for every 400 (br_fdb_dump).
func (w *writer) list() error {
	var stations []rtnl.Entry
	if err := w.lists.Do(rtnl.GetStations(&stations, w.port)); err != nil {
		return err
	}
	for _, e := range stations {
		w.have.take(e)
	}
	return w.listNeighbours()
}

func (w *writer) listNeighbours() error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var neighbours []rtnl.Entry
		if err := w.lists.Do(rtnl.GetNeighbours(&neighbours, w.bridge, family)); err != nil {
			return err
		}
		for _, e := range neighbours {
			w.have.take(e)
		}
	}
	return nil
}

// each calls the functions for what is wanted, and for what the kernel has besides.
func (w *writer) each(station func(vnic.MAC), neighbour func(netip.Addr)) {
	for mac := range w.table.remotes {
		station(mac)
	}
	for a := range w.table.owners {
		neighbour(a)
	}
	if !w.table.known {
		return
	}
	for mac := range w.have.tunnels {
		if _, wanted := w.table.remotes[mac]; !wanted {
			station(mac)
		}
	}
	for mac := range w.have.ports {
		_, wanted := w.table.remotes[mac]
		if _, done := w.have.tunnels[mac]; !wanted && !done {
			station(mac)
		}
	}
	for a := range w.have.neighbours {
		if _, wanted := w.table.owners[a]; !wanted {
			neighbour(a)
		}
	}
}

// differing returns what is not as it should be.
func (w *writer) differing() (k keys) {
	w.each(func(mac vnic.MAC) {
		r, wanted := w.table.remotes[mac]
		tunnel, hasTunnel := w.have.tunnels[mac]
		port, hasPort := w.have.ports[mac]
		right := hasTunnel && tunnelIs(tunnel, r.Host) && hasPort && portIs(port)
		if wanted && !right || !wanted && (hasTunnel || hasPort && !port.Local()) {
			k.macs = append(k.macs, mac)
		}
	}, func(a netip.Addr) {
		mac, wanted := w.table.owners[a]
		if e := w.have.neighbours[a]; wanted && !neighbourIs(e, mac) || !wanted && e.Permanent() {
			k.addrs = append(k.addrs, a)
		}
	})
	return k
}

// some compares a few entries.
func (w *writer) some(ctx context.Context, k keys) error {
	if err := w.ask(ctx, k); err != nil {
		return err
	}
	for _, mac := range k.macs {
		w.station(ctx, mac)
	}
	for _, a := range k.addrs {
		w.neighbour(ctx, a)
	}
	return w.finish(ctx)
}

// ask has the kernel tell about keys.
func (w *writer) ask(ctx context.Context, k keys) error {
	var reqs []rtnl.Request
	for _, mac := range k.macs {
		delete(w.have.tunnels, mac)
		delete(w.have.ports, mac)
		reqs = append(reqs, rtnl.GetStation(w.have.take, rtnl.OfLink, w.port, mac), rtnl.GetStation(w.have.take, rtnl.OfBridge, w.port, mac))
	}
	for _, a := range k.addrs {
		reqs = append(reqs, rtnl.GetNeighbour(w.have.take, w.bridge, a))
	}
	for chunk := range slices.Chunk(reqs, askChunk) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.conn.Do(chunk...); err != nil {
			return err
		}
	}
	return nil
}

// station makes the entries of one MAC right.
func (w *writer) station(ctx context.Context, mac vnic.MAC) {
	r, wanted := w.table.remotes[mac]
	tunnel, hasTunnel := w.have.tunnels[mac]
	port, hasPort := w.have.ports[mac]
	here := hasPort && port.Index == w.port
	switch {
	case !wanted:
		if hasTunnel {
			w.drift.Foreign++
			w.send(ctx, rtnl.DelStation(rtnl.OfLink, w.port, mac).Tolerate(unix.ENOENT))
		}
		if here && !port.Local() {
			w.drift.Foreign++
			w.send(ctx, rtnl.DelStation(rtnl.OfBridge, w.port, mac).Tolerate(unix.ENOENT))
		}
		return
	case hasPort && (port.Local() || !here && port.Static()):
		w.taken = append(w.taken, mac)
		return
	case !hasTunnel && !hasPort:
		w.add(ctx, 2, mac, rtnl.AddStation(rtnl.OfLink|rtnl.OfBridge, w.port, mac, r.Host))
		return
	case !hasPort:
		// It may be at another port, which a list of this one's doesn't tell.
		w.add(ctx, 1, mac, rtnl.AddStation(rtnl.OfBridge, w.port, mac, r.Host))
	case !here || !portIs(port):
		w.drift.Wrong++
		w.send(ctx, rtnl.SetStation(rtnl.OfBridge, w.port, mac, r.Host))
	}
	if !hasTunnel || !tunnelIs(tunnel, r.Host) {
		w.drift.differs(hasTunnel)
		w.send(ctx, rtnl.SetStation(rtnl.OfLink, w.port, mac, r.Host))
	}
}

// neighbour makes the entry of one address right.
func (w *writer) neighbour(ctx context.Context, a netip.Addr) {
	mac, wanted := w.table.owners[a]
	e, has := w.have.neighbours[a]
	switch {
	case !wanted && has && e.Permanent():
		w.drift.Foreign++
		w.send(ctx, rtnl.DelNeighbour(w.bridge, a).Tolerate(unix.ENOENT))
	case wanted && !neighbourIs(e, mac):
		w.drift.differs(has && e.Known())
		w.send(ctx, rtnl.SetNeighbour(w.bridge, a, mac))
	}
}

// differs counts an entry that is otherwise than it should be.
func (d *Drift) differs(has bool) {
	if has {
		d.Wrong++
	} else {
		d.Missing++
	}
}

// add sends a request for so many entries of a MAC that must be new.
func (w *writer) add(ctx context.Context, entries int, mac vnic.MAC, r rtnl.Request) {
	w.drift.Missing += entries
	if w.adds == nil {
		w.adds = make(map[vnic.MAC]int, writeChunk)
	}
	w.adds[mac] = entries
	w.send(ctx, r)
}

// send sends a request with others.
func (w *writer) send(ctx context.Context, r rtnl.Request) {
	if w.reqs = append(w.reqs, r); len(w.reqs) >= writeChunk {
		w.keep(w.flush(ctx))
	}
}

func (w *writer) keep(err error) {
	if w.err == nil {
		w.err = err
	}
}

// flush sends what is to be sent. The kernel carries out all of it, whatever fails.
func (w *writer) flush(ctx context.Context) error {
	reqs, adds := w.reqs, w.adds
	w.reqs, w.adds = w.reqs[:0], nil
	if err := ctx.Err(); err != nil {
		return err
	}
	err := w.conn.Do(reqs...)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if w.again == nil {
		w.again = map[vnic.MAC]int{}
	}
	maps.Copy(w.again, adds)
	return nil
}

// finish sends the rest, looks again at stations that somebody else has added, and
// returns the first error.
func (w *writer) finish(ctx context.Context) error {
	w.keep(w.flush(ctx))
	if w.err != nil || len(w.again) == 0 {
		return errors.Join(w.err, w.takenError())
	}
	macs := make([]vnic.MAC, 0, len(w.again))
	for mac := range w.again {
		macs = append(macs, mac)
	}
	second := &writer{conn: w.conn, port: w.port, bridge: w.bridge, table: w.table}
	if err := second.ask(ctx, keys{macs: macs}); err != nil {
		return err
	}
	for _, mac := range macs {
		second.station(ctx, mac)
	}
	err := second.flush(ctx)
	if err == nil && len(second.again) > 0 {
		err = fmt.Errorf("forwarding entries change all the time: %w", unix.EEXIST)
	}
	for _, mac := range second.taken {
		w.drift.Missing -= w.again[mac] // nothing was missing, nor has anything been added
	}
	w.taken = append(w.taken, second.taken...)
	return errors.Join(err, w.takenError())
}

// takenError tells of remotes whose MAC is a local station's.
func (w *writer) takenError() error {
	if len(w.taken) == 0 {
		return nil
	}
	why := "is at a local port of the bridge, and will lead to the remote pod when that port is gone"
	if more := len(w.taken) - 1; more > 0 {
		why += fmt.Sprintf(" (and %d more)", more)
	}
	return &vnic.TakenError{What: "mac " + w.taken[0].String(), Why: why, Err: vnic.ErrAddressTaken}
}
