package netcost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// tcRoot is the parent of a link's root queueing discipline (TC_H_ROOT of the kernel).
const tcRoot = 0xffffffff

// Device is what a network device has counted.
type Device struct {
	Namespace string `json:"namespace"` // as in [Options]
	Name      string `json:"name"`
	Index     int    `json:"index"`
	// Driver is "virtio_net", "veth", "bridge", "tun"; empty for devices without one.
	Driver    string `json:"driver"`
	RxPackets uint64 `json:"rxPackets"`
	TxPackets uint64 `json:"txPackets"`
	RxBytes   uint64 `json:"rxBytes"`
	TxBytes   uint64 `json:"txBytes"`
	RxDrops   uint64 `json:"rxDrops"` // those for want of a buffer included
	TxDrops   uint64 `json:"txDrops"` // for a tap: its reader was too slow
	RxErrors  uint64 `json:"rxErrors"`
	TxErrors  uint64 `json:"txErrors"`
	// QdiscDrops were dropped by the queueing discipline before the device.
	QdiscDrops uint64 `json:"qdiscDrops"`
}

// Drops returns all packets that the device lost, in either direction.
func (d Device) Drops() uint64 { return d.RxDrops + d.TxDrops + d.QdiscDrops }

// readNamespaces reads the counters of devices and protocols.
func (c *Counters) readNamespaces(ctx context.Context, proc fs.FS, namespaces []string) error {
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	for _, name := range namespaces {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.readNamespace(proc, name); err != nil {
			return fmt.Errorf("count in namespace %s: %w", cmp.Or(name, "of this process"), err)
		}
	}
	return nil
}

func (c *Counters) readNamespace(proc fs.FS, name string) (err error) {
	read := func() error {
		p, err := readProtocol(proc, name)
		if err != nil {
			return err
		}
		ds, err := readDevices(name)
		c.Namespaces, c.Devices = append(c.Namespaces, p), append(c.Devices, ds...)
		return err
	}
	if name == "" {
		return read()
	}
	ns, err := netnsx.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return ns.Do(read)
}

// readDevices reads the counters of the calling thread's namespace.
func readDevices(namespace string) (ds []Device, err error) {
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var links []rtnl.LinkCounters
	var qdiscs []rtnl.Qdisc
	if err := errors.Join(conn.Do(rtnl.GetLinkCounters(&links)), conn.Do(rtnl.GetQdiscs(&qdiscs))); err != nil { // two dumps at once are EBUSY
		return nil, err
	}
	drops := map[int]uint64{}
	for _, q := range qdiscs {
		if q.Parent == tcRoot { // has those of the disciplines within it too
			drops[q.Index] += uint64(q.Drops)
		}
	}
	for _, l := range links {
		driver, _, err := conn.Driver(l.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, err
		}
		ds = append(ds, Device{
			Namespace: namespace, Name: l.Name, Index: l.Index, Driver: cmp.Or(driver, l.Kind),
			RxPackets: l.RxPackets, TxPackets: l.TxPackets, RxBytes: l.RxBytes, TxBytes: l.TxBytes,
			RxDrops: l.RxDropped + l.RxMissed, TxDrops: l.TxDropped, RxErrors: l.RxErrors, TxErrors: l.TxErrors,
			QdiscDrops: drops[l.Index],
		})
	}
	return ds, nil
}

func (d Device) since(e Device) Device {
	return Device{
		Namespace: d.Namespace, Name: d.Name, Index: d.Index, Driver: d.Driver,
		RxPackets: less(d.RxPackets, e.RxPackets), TxPackets: less(d.TxPackets, e.TxPackets),
		RxBytes: less(d.RxBytes, e.RxBytes), TxBytes: less(d.TxBytes, e.TxBytes),
		RxDrops: less(d.RxDrops, e.RxDrops), TxDrops: less(d.TxDrops, e.TxDrops),
		RxErrors: less(d.RxErrors, e.RxErrors), TxErrors: less(d.TxErrors, e.TxErrors),
		QdiscDrops: less(d.QdiscDrops, e.QdiscDrops),
	}
}
