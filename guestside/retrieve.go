package guestside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Retrieve awaits a vNIC by its MAC until ctx ends, which is a
// [vnic.ErrNICMissing], takes it from wherever it is back to the first namespace,
// and makes it like one that was just plugged: down, named by
// [vnic.ID.LinkName], with the order's MTU if it has one, and without any trace
// of a pod but the counters of its traffic. The agent forgets whose it was.
//
// It is compared with what it was when it was new. What is left of a pod beyond
// what pods usually do makes Retrieve take the driver from the device and give
// it back, which makes another link of it. A vNIC that can't be made like new
// is a [vnic.ErrDiffers] that names what differs.
//
// For one that a pod had in use, and that was seen when it was new, Retrieve returns
// once it is in the first namespace, and the rest follows: until then, calls for that
// vNIC wait, and if it can't be made like new, to move it is the [vnic.ErrDiffers].
func (a *Agent) Retrieve(ctx context.Context, m vnic.Move) (nic vnic.NIC, err error) {
	if m.Interface == "" {
		m.Interface = m.ID.LinkName() // not needed, but checked
	}
	release, err := a.begin(ctx, m)
	if err != nil {
		return nic, err
	}
	nic, later, err := a.retrieve(ctx, m)
	if err == nil {
		a.records.drop(m.MAC)
		err = failpoint.Hit("guest.retrieved")
	} else {
		err = fmt.Errorf("retrieve vnic %s: %w", m.MAC, err)
	}
	if later == nil {
		release()
		return nic, err
	}
	a.wg.Go(func() {
		defer release()
		later()
	})
	return nic, err
}

// retrieve is called with the vNIC's lock. It may return what remains to be done
// under it.
func (a *Agent) retrieve(ctx context.Context, m vnic.Move) (nic vnic.NIC, later func(), err error) {
	for {
		was, err := a.fetch(ctx, m)
		if err != nil {
			return vnic.NIC{}, nil, err
		}
		if k, ok := a.known.get(m.MAC); ok && k.facts != nil && k.spoilt == nil && was.moved && !was.down {
			nic = vnic.NIC{ID: m.ID, MAC: m.MAC, Interface: m.ID.LinkName(), PCI: k.pci, Driver: k.driver}
			return nic, func() { a.renewLater(m, was) }, nil //nolint:contextcheck // the call has ended by then
		}
		nic, err := a.renew(ctx, m, was)
		if !errors.Is(err, errLeft) {
			a.noteRenewed(m, err)
			return nic, nil, err
		}
	}
}

// renewLimit bounds making a vNIC like new when nobody waits for it.
const renewLimit = 10 * time.Second

// renewLater makes a vNIC like new that was just brought home, with its lock.
func (a *Agent) renewLater(m vnic.Move, was before) {
	ctx, cancel := context.WithTimeout(a.ctx, renewLimit)
	defer cancel()
	_, err := a.renew(ctx, m, was)
	if err != nil && !errors.Is(err, vnic.ErrDiffers) { // it left, or could not be looked at
		err = fmt.Errorf("it is not proven to be like new: %w: %w", vnic.ErrDiffers, err)
	}
	a.noteRenewed(m, err)
}

// noteRenewed notes whether a vNIC is like new, and so may be moved.
func (a *Agent) noteRenewed(m vnic.Move, err error) {
	a.known.edit(m.MAC, func(d *device) { d.spoilt = err })
	log := a.log.With(slog.String("id", string(m.ID)), slog.String("netns", m.Netns))
	if err != nil {
		log.Warn("vnic is not like new", slog.Any("error", err))
		return
	}
	log.Info("vnic retrieved")
}

// before is how a vNIC was found.
type before struct {
	moved bool // it was in another namespace: the kernel takes much from a link that is moved
	// down says that its link was down. The driver keeps the buffers that it has given
	// the device, and the device fills them: who sets it up next gets those frames.
	down bool
}

// fetch brings a vNIC to the first namespace. What is nowhere is awaited.
func (a *Agent) fetch(ctx context.Context, m vnic.Move) (was before, err error) {
	atHome := before{down: true} // since it came back, at the latest
	if _, ok := a.links.find(m.MAC); ok {
		return atHome, nil
	}
	r, known := a.records.get(m.MAC)
	refs := []string{m.Netns}
	if known && r.inPod {
		refs = []string{r.netns, m.Netns}
	}
	for _, ref := range slices.Compact(refs) {
		if ref == "" {
			continue
		}
		if was, err := a.fetchFrom(ref, m); was.moved || err != nil {
			return was, err
		}
	}
	if a.isGone(m.MAC) {
		return was, fmt.Errorf("its device is not there any more: %w", vnic.ErrNICMissing)
	}
	at, err := a.await(ctx, m)
	if err != nil || at.ns == a.home {
		return atHome, err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	return a.takeHome(at.ns, m)
}

// fetchFrom is takeHome for the namespace that ref names, if there is one.
func (a *Agent) fetchFrom(ref string, m vnic.Move) (was before, err error) {
	ns, err := netnsx.Open(ref)
	if errors.Is(err, vnic.ErrUnknownPod) {
		return was, nil
	}
	if err != nil {
		return was, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	if ns.ID() == a.home.ID() {
		return was, nil
	}
	return a.takeHome(ns, m)
}

// takeHome moves a vNIC out of a namespace, if it is there.
func (a *Agent) takeHome(ns *netnsx.NS, m vnic.Move) (was before, err error) {
	defer a.rcu.begin()()
	err = within(ns, func(c *rtnl.Conn) error {
		all, err := c.Links()
		if err != nil {
			return err
		}
		l, ok := rtnl.FindMAC(all, m.MAC)
		if ok = ok && (l.Kind == "" || l.Kind == a.standIn); !ok {
			return nil
		}
		was = before{moved: true, down: !l.Up}
		return c.Do(a.homeward(l, m)...)
	})
	if errors.Is(err, unix.ENODEV) {
		return before{}, nil // it left meanwhile
	}
	if err != nil {
		return was, fmt.Errorf("take it out of its pod: %w", err)
	}
	return was, nil
}

// podFlags are the flags of a link that whoever administrates it may change.
const podFlags = unix.IFF_UP | unix.IFF_DEBUG | unix.IFF_NOTRAILERS | unix.IFF_NOARP | unix.IFF_PROMISC | unix.IFF_ALLMULTI |
	unix.IFF_MULTICAST | unix.IFF_PORTSEL | unix.IFF_AUTOMEDIA | unix.IFF_DYNAMIC

// homeward returns the requests that move a link to the first namespace and take
// from it what pods may have done to it, by one message but for alternative
// names. The kernel itself takes addresses, routes, neighbours, queueing
// disciplines, filters, links on top of it and the settings of IPv4 and IPv6.
func (a *Agent) homeward(l rtnl.Link, m vnic.Move) []rtnl.Request {
	var reqs []rtnl.Request
	if len(l.AltNames) > 0 {
		reqs = append(reqs, rtnl.DelAltNames(l.Index, l.AltNames))
	}
	c := a.likeNew(l, m)
	if l.Flags&unix.IFF_NOARP != 0 { // a link that has it is given other settings for IPv6 where it arrives
		reqs = append(reqs, rtnl.SetLink(l.Index, rtnl.Change{Mask: c.Mask, Flags: c.Flags}))
	}
	c.Netns, c.Name = a.home.FD(), m.ID.LinkName()
	req := rtnl.SetLink(l.Index, c)
	if l.XDP != rtnl.NoXDP {
		req = req.Tolerate(unix.EBUSY, unix.EINVAL) // comes last, and is looked at later
	}
	return append(reqs, req)
}

// likeNew returns what is to be changed about a link beside its name, its place
// and its alternative names.
func (a *Agent) likeNew(l rtnl.Link, m vnic.Move) rtnl.Change {
	c := rtnl.Change{
		Mask: podFlags, Flags: unix.IFF_MULTICAST,
		ClearAlias: l.Alias != "", Free: l.Master != 0, XDP: l.XDP,
	}
	if !l.Permanent.IsZero() && l.MAC != l.Permanent {
		c.MAC = l.Permanent
	}
	mtu := m.MTU
	if k, ok := a.known.get(m.MAC); ok && k.facts != nil {
		if mtu == 0 {
			mtu = k.link.MTU
		}
		if l.TxQueue != k.link.TxQueue {
			c.TxQueue = k.link.TxQueue
		}
	}
	if mtu == 0 {
		mtu = a.mtuBefore(m.MAC, l)
	}
	if mtu != l.MTU {
		c.MTU = mtu
	}
	return c
}

// mtuBefore returns what MTU a vNIC had before its move.
func (a *Agent) mtuBefore(mac vnic.MAC, l rtnl.Link) int {
	r, _ := a.records.get(mac)
	mtu := r.mtu
	if mtu == 0 {
		mtu = defaultMTU
	}
	if l.MaxMTU > 0 {
		mtu = min(mtu, l.MaxMTU)
	}
	return mtu
}

// isGone tells whether a vNIC is known to be unplugged.
func (a *Agent) isGone(mac vnic.MAC) bool {
	pci := a.pciOf(mac)
	if pci == "" {
		return false
	}
	if _, err := os.Stat(pciDevices); err != nil {
		return false // where there is no such folder, nothing can be told
	}
	_, err := os.Stat(filepath.Join(pciDevices, pci))
	return errors.Is(err, os.ErrNotExist)
}

// pciOf returns the PCI address of a vNIC, or "" when it is not known.
func (a *Agent) pciOf(mac vnic.MAC) string {
	k, _ := a.known.get(mac)
	r, _ := a.records.get(mac)
	return cmp.Or(k.pci, r.pci)
}
