package guestside

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// defaultMTU in bytes is what a vNIC gets back whose MTU before its move is
// not known, because the agent was restarted.
const defaultMTU = 1500

// Release forgets a vNIC that is about to be unplugged. It is left to that,
// which takes it from wherever it is: setting it down before would only cost
// time. Where the hypervisor's word alone would take seconds, the guest lets go of
// the device by itself, in the background. It succeeds when the pod, its namespace or the vNIC is gone.
func (a *Agent) Release(ctx context.Context, m vnic.Move) error {
	if m.Interface == "" {
		m.Interface = m.ID.LinkName() // not needed, but checked
	}
	release, err := a.begin(ctx, m)
	if err != nil {
		return err
	}
	defer release()
	a.powerOff(m, a.pciOf(m.MAC))
	a.records.drop(m.MAC)
	a.known.drop(m.MAC)
	a.log.Info("vnic released", slog.String("id", string(m.ID)), slog.String("netns", m.Netns))
	return failpoint.Hit("guest.released")
}

// bringHome takes all traces of the pod from a vNIC and moves it to the first
// namespace, if it isn't there. c is a connection where it is.
func (a *Agent) bringHome(c *rtnl.Conn, at place, m vnic.Move) error {
	var l rtnl.Link
	var addrs []rtnl.Addr
	if err := c.Do(rtnl.GetLinkIndex(&l, at.link.Index).Tolerate(unix.ENODEV), rtnl.GetAddrs(&addrs)); err != nil {
		return err
	}
	if !l.HasMAC(m.MAC) {
		return nil // gone meanwhile
	}
	back := rtnl.Change{Name: m.ID.LinkName(), MTU: a.mtuBefore(m.MAC, l)}
	if at.ns != a.home {
		back.Netns = a.home.FD()
	}
	// Two messages: the move is tried only when the vNIC is clean.
	if err := c.Do(scrub(l, prefixes(addrs, l.Index))...); err != nil {
		return err
	}
	return c.Do(rtnl.SetLink(l.Index, back))
}

// scrub returns the requests that take from a link what a pod may have done to
// it, beside its name and MTU. Down and the move take care of routes and
// neighbours, the move of queueing disciplines and IPv6 settings.
func scrub(l rtnl.Link, addrs []netip.Prefix) []rtnl.Request {
	reqs := []rtnl.Request{rtnl.SetLink(l.Index, rtnl.Change{
		Mask:       unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP,
		ClearAlias: l.Alias != "", Free: l.Master != 0, XDP: l.XDP,
	})}
	if !l.Permanent.IsZero() && l.MAC != l.Permanent {
		reqs = append(reqs, rtnl.SetLink(l.Index, rtnl.Change{MAC: l.Permanent}))
	}
	if len(l.AltNames) > 0 {
		reqs = append(reqs, rtnl.DelAltNames(l.Index, l.AltNames))
	}
	for _, p := range addrs {
		reqs = append(reqs, rtnl.DelAddr(l.Index, p).Tolerate(unix.EADDRNOTAVAIL))
	}
	return reqs
}

// noticeReturned looks for vNICs in the first namespace that are known to be
// in a pod: the pod's namespace has died, and the kernel gave them back, down
// and under the names that they had.
func (a *Agent) noticeReturned(u rtnl.Update) {
	for _, r := range a.records.all() {
		if !r.inPod {
			continue
		}
		for _, c := range u.Changes {
			if !c.Gone && c.Link.HasMAC(r.mac) {
				a.wg.Go(func() { a.returned(r.mac) })
				break
			}
		}
	}
}

// returned takes back a vNIC whose pod has died.
func (a *Agent) returned(mac vnic.MAC) {
	a.comeHome(mac, homecoming{
		what:  "pod is gone, its vnic is back",
		known: func(r record) bool { return r.inPod },
		note:  func() { a.records.drop(mac) },
		tell:  a.onReturned,
	})
}

// homecoming is what a vNIC's return to the first namespace means.
type homecoming struct {
	what  string              // for people
	known func(r record) bool // whether it was known to be elsewhere
	note  func()              // takes down that it isn't
	tell  func(id vnic.ID, mac vnic.MAC)
}

// comeHome puts a vNIC right that came back, if it is true that it did: the event may
// be from before it left.
func (a *Agent) comeHome(mac vnic.MAC, h homecoming) {
	release, err := a.locks.Lock(a.ctx, mac)
	if err != nil {
		return // the agent is being closed
	}
	r, ok, err := a.putRight(mac, h)
	release()
	log := a.log.With(slog.String("id", string(r.id)), slog.String("netns", r.netns))
	if err != nil {
		log.Warn("put vnic right that came back", slog.Any("error", err))
	}
	if ok {
		log.Info(h.what)
		h.tell(r.id, mac)
	}
}

// putRight does so. It is called with the vNIC's lock.
func (a *Agent) putRight(mac vnic.MAC, h homecoming) (r record, ok bool, err error) {
	r, ok = a.records.get(mac)
	if !ok || !h.known(r) {
		return r, false, nil
	}
	all, err := a.conn.Links()
	if err != nil {
		return r, false, err
	}
	l, ok := rtnl.FindMAC(all, mac)
	if !ok {
		return r, false, nil
	}
	err = a.bringHome(a.conn, place{ns: a.home, link: l}, vnic.Move{ID: r.id, MAC: mac})
	if errors.Is(err, unix.ENODEV) {
		err = nil // unplugged meanwhile
	}
	h.note()
	return r, true, err
}
