package netpath

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// device describes a link.
func (v *view) device(l rtnl.PathLink) (*Device, []string) {
	d := &Device{
		Name: l.Name, Index: l.Index, Kind: cmp.Or(l.Kind, "nic"), MAC: l.MAC.String(), MTU: l.MTU, Up: l.Up, Carrier: l.Carrier,
		RX:     Count{Packets: l.Stats.RxPackets, Bytes: l.Stats.RxBytes, Drops: l.Stats.RxDropped, Errors: l.Stats.RxErrors},
		TX:     Count{Packets: l.Stats.TxPackets, Bytes: l.Stats.TxBytes, Drops: l.Stats.TxDropped, Errors: l.Stats.TxErrors},
		Chains: v.rules.on(l.Name), Offloads: v.conn.Offloads(l.Name),
	}
	var notes []string
	var err error
	if d.Driver, d.Bus, err = v.conn.Driver(l.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		notes = append(notes, err.Error())
	}
	d.Queues, d.MaxQueues = v.conn.Queues(l.Name)
	if l.Kind == "" {
		d.Vectors = vectors(d.Bus)
	}
	for _, m := range v.links {
		if m.Index == l.Master {
			d.Master = m.Name
		}
	}
	if x := l.VXLAN; x != nil {
		d.VXLAN = &VXLAN{VNI: x.VNI, Port: x.Port, Local: x.Local, Remote: x.Remote}
	}
	if t := l.Tap; t != nil {
		d.Tap = &Tap{VnetHdr: t.VnetHdr, Queues: t.Queues}
		if !t.MultiQueue && l.Carrier { // the kernel counts those of others only
			d.Tap.Queues = 1
		}
	}
	for _, q := range v.qdiscs {
		if q.Index == l.Index && len(d.Qdiscs) < maxQdiscs {
			d.Qdiscs = append(d.Qdiscs, qdisc(q))
		}
	}
	programs, err := v.programs(l)
	if err != nil {
		notes = append(notes, err.Error())
	}
	d.Programs = programs
	return d, notes
}

// vectors counts the interrupt vectors of a PCI device; 0: it is none, or has none.
func vectors(bus string) int {
	if bus == "" || filepath.Base(bus) != bus {
		return 0
	}
	irqs, err := os.ReadDir(filepath.Join("/sys/bus/pci/devices", bus, "msi_irqs"))
	if err != nil {
		return 0
	}
	return len(irqs)
}

func qdisc(q rtnl.Qdisc) Qdisc {
	return Qdisc{
		Kind: q.Kind, Handle: fmt.Sprintf("%x:", q.Handle>>16), Parent: parent(q.Parent),
		Sent:     Count{Packets: q.Packets, Bytes: q.Bytes, Drops: uint64(q.Drops)},
		Requeues: uint64(q.Requeues), Waiting: uint64(q.Waiting), Backlog: uint64(q.Backlog),
	}
}

func parent(handle uint32) string {
	switch handle {
	case 0xffffffff:
		return "root"
	case 0xfffffff1:
		return "ingress"
	case 0:
		return "none"
	}
	return fmt.Sprintf("%x:%x", handle>>16, handle&0xffff)
}

// xdpModes say how an XDP program is attached.
var xdpModes = map[rtnl.XDPMode]string{
	rtnl.DriverXDP: "driver", rtnl.GenericXDP: "generic", rtnl.DeviceXDP: "device", rtnl.ManyXDP: "several",
}

// programs tells what BPF programs and filters a link has.
func (v *view) programs(l rtnl.PathLink) ([]string, error) {
	var all []string
	if l.XDP != rtnl.NoXDP {
		all = append(all, "xdp ("+xdpModes[l.XDP]+")")
	}
	for _, place := range []struct {
		name   string
		parent uint32
	}{{"ingress", rtnl.FiltersIn}, {"egress", rtnl.FiltersOut}} {
		kinds := map[string]int{}
		if err := v.conn.Do(rtnl.GetFilters(kinds, l.Index, place.parent)); err != nil {
			return all, err
		}
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			all = append(all, fmt.Sprintf("%d %s at tc %s", kinds[kind], kind, place.name))
		}
	}
	n, err := v.tcx(l.Index)
	if n > 0 {
		all = append(all, fmt.Sprintf("%d at tcx", n))
	}
	return all, err
}

// errTCX is returned when the kernel won't tell of programs.
var errTCX = errors.New("whether there are BPF programs at tcx may not be asked: operation not permitted")

// tcx tells how many programs a link has at the points that Linux 6.6 brought.
func (v *view) tcx(index int) (n int, err error) {
	if !rtnl.HasTCX() {
		return 0, nil
	}
	err = v.ns.Do(func() (err error) {
		n, err = rtnl.TCXPrograms(index)
		return err
	})
	if errors.Is(err, unix.EPERM) { // a hardened service may not ask
		err = errTCX
	}
	return n, err
}
