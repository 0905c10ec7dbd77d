package guestside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// AtHome returns the name of a vNIC in the first namespace, and whether it is
// there. Where it is comes from memory, which events keep true; its name, which
// may have changed just now, from the kernel.
func (a *Agent) AtHome(mac vnic.MAC) (link string, ok bool) {
	l, ok := a.links.find(mac)
	if !ok {
		return "", false
	}
	var now rtnl.Link
	if err := a.conn.Do(rtnl.GetLinkIndex(&now, l.Index).Tolerate(unix.ENODEV)); err != nil {
		a.log.Warn("look up vnic", slog.String("mac", mac.String()), slog.Any("error", err))
		return l.Name, true
	}
	return now.Name, now.HasMAC(mac)
}

// prepareHandover checks that the vNIC can have its name in the first namespace.
func (a *Agent) prepareHandover(m vnic.Move) error {
	if l, ok := a.links.named(m.ID.LinkName()); ok && !l.HasMAC(m.MAC) {
		return fmt.Errorf("the vm has an interface %s with mac %s: %w; rename it", l.Name, l.MAC, vnic.ErrNameTaken)
	}
	if _, known := a.records.get(m.MAC); !known {
		a.records.put(record{id: m.ID, mac: m.MAC, handover: true})
	}
	return nil
}

// handOver awaits a vNIC and leaves it ready for its engine, unless the engine
// has it. It is called with the vNIC's lock.
func (a *Agent) handOver(ctx context.Context, m vnic.Move) (nic vnic.NIC, times MoveTimes, err error) {
	start := time.Now()
	for {
		at, err := a.findForEngine(ctx, m)
		if err != nil {
			return nic, times, err
		}
		times.Appear = time.Since(start)
		found := time.Now()
		if at.ns.ID() == a.home.ID() {
			nic, err = a.deliver(at, m)
		} else {
			nic, err = a.leaveWithEngine(at, m)
		}
		times.Move = time.Since(found)
		if err = errors.Join(err, at.close()); !errors.Is(err, errLeft) {
			return nic, times, err
		}
		a.links.forget(at.link.Index, m.MAC) // and look for it again
	}
}

// findForEngine returns where the vNIC is: in the first namespace, or wherever its
// engine took it. One that was only prepared has yet to appear, and is awaited
// before others are searched.
func (a *Agent) findForEngine(ctx context.Context, m vnic.Move) (place, error) {
	if l, ok := a.links.find(m.MAC); ok {
		return place{ns: a.home, link: l}, nil
	}
	if r, ok := a.records.get(m.MAC); !ok || r.delivered {
		if p, found, err := a.search(ctx, m.MAC); found || err != nil {
			return p, err
		}
	}
	return a.await(ctx, m)
}

// deliver puts a vNIC in the first namespace right.
func (a *Agent) deliver(at place, m vnic.Move) (nic vnic.NIC, err error) {
	if err := failpoint.Hit("guest.found"); err != nil {
		return nic, err
	}
	var l rtnl.Link
	var addrs []rtnl.Addr
	if err := a.conn.Do(rtnl.GetLinkIndex(&l, at.link.Index).Tolerate(unix.ENODEV), rtnl.GetAddrs(&addrs)); err != nil {
		return nic, err
	}
	if !l.HasMAC(m.MAC) {
		return nic, errLeft
	}
	reqs := deliverPlan(l, prefixes(addrs, l.Index), m)
	switch err := a.conn.Do(append(reqs, rtnl.GetLinkIndex(&l, l.Index))...); {
	case errors.Is(err, unix.ENODEV):
		return nic, fmt.Errorf("%w: %w", errLeft, err)
	case errors.Is(err, unix.EEXIST):
		return nic, fmt.Errorf("name vnic %s in the vm's own namespace: %w: %w; rename the interface that has the name", m.MAC, vnic.ErrNameTaken, err)
	case err != nil:
		return nic, fmt.Errorf("hand vnic %s over: %w", m.MAC, err)
	}
	s := setup{Agent: a, c: a.conn, m: m}
	s.m.Interface = l.Name
	if err := s.queues(); err != nil {
		return nic, err
	}
	if nic, err = a.noteDelivered(a.conn, l, m, ""); err != nil {
		return nic, err
	}
	return nic, failpoint.Hit("guest.moved")
}

// deliverPlan returns what leads from what a link is to what an engine expects. It
// is little when nobody has touched the vNIC, and nothing when it was delivered.
func deliverPlan(l rtnl.Link, addrs []netip.Prefix, m vnic.Move) []rtnl.Request {
	var reqs []rtnl.Request
	if l.Up || len(addrs) > 0 || l.Alias != "" || l.Master != 0 || l.XDP != rtnl.NoXDP || len(l.AltNames) > 0 ||
		!l.Permanent.IsZero() && l.MAC != l.Permanent {
		reqs = scrub(l, addrs)
	}
	want := rtnl.Change{}
	if l.Name != m.ID.LinkName() {
		want.Name = m.ID.LinkName()
	}
	if m.MTU != l.MTU {
		want.MTU = m.MTU
	}
	if want != (rtnl.Change{}) {
		reqs = append(reqs, rtnl.SetLink(l.Index, want))
	}
	return reqs
}

// leaveWithEngine only takes down that an engine has the vNIC.
func (a *Agent) leaveWithEngine(at place, m vnic.Move) (nic vnic.NIC, err error) {
	err = within(at.ns, func(c *rtnl.Conn) error {
		nic, err = a.noteDelivered(c, at.link, m, at.ref)
		return err
	})
	return nic, err
}

// noteDelivered takes down that a vNIC is with its engine, or ready for it when
// netns is empty.
func (a *Agent) noteDelivered(c *rtnl.Conn, l rtnl.Link, m vnic.Move, netns string) (vnic.NIC, error) {
	nic, err := describe(c, l)
	if err != nil {
		return nic, err
	}
	nic.ID, nic.Netns = m.ID, netns
	a.known.edit(m.MAC, func(d *device) { d.used, d.pci, d.driver = true, nic.PCI, nic.Driver })
	a.records.put(record{
		id: m.ID, mac: m.MAC, handover: true, delivered: true, left: netns != "", pci: nic.PCI, driver: nic.Driver, mtu: m.MTU,
	})
	a.log.Info("vnic handed over", slog.String("id", string(m.ID)), slog.String("netns", netns), slog.String("interface", l.Name))
	return nic, nil
}

// noticeHandedOver looks for vNICs that were handed over in the news of the first
// namespace: they leave it with their engine, and come back.
func (a *Agent) noticeHandedOver(u rtnl.Update) {
	for _, r := range a.records.all() {
		if !r.handover || !r.delivered {
			continue
		}
		left := r.left || u.Full && !slices.ContainsFunc(u.Changes, func(c rtnl.LinkChange) bool { return c.Link.HasMAC(r.mac) })
		back := false
		for _, c := range u.Changes {
			if !c.Link.HasMAC(r.mac) {
				continue
			}
			left, back = left || c.Gone, !c.Gone
		}
		if left != r.left {
			a.records.edit(r.mac, func(r *record) { r.left = left })
		}
		if left && back {
			a.wg.Go(func() { a.handedBack(r.mac) })
		}
	}
}

// handedBack takes in a vNIC whose engine is done with it, or died.
func (a *Agent) handedBack(mac vnic.MAC) {
	a.comeHome(mac, homecoming{
		what:  "vnic was handed back",
		known: func(r record) bool { return r.handover && r.left },
		note:  func() { a.records.edit(mac, func(r *record) { r.left = false }) },
		tell:  a.onBack,
	})
}
