package guestside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/guestside/internal/announce"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Configure gives a vNIC that is in its pod its own MAC and exactly the wanted
// addresses and routes, sets it up and announces the addresses to its
// neighbours. It is a [vnic.ErrNICMissing] when the vNIC is not in the pod under
// its name, and a [vnic.ErrConflict] when another interface of the pod has one of
// the routes. Stations that the order names are entered in the neighbour table.
//
// With an IPv6 address among the wanted it also gets the link-local address that
// derives from its MAC; without, it gets no IPv6 address at all. Router
// advertisements are not heeded.
func (a *Agent) Configure(ctx context.Context, m vnic.Move) (nic vnic.NIC, err error) {
	release, err := a.begin(ctx, m)
	if err != nil {
		return nic, err
	}
	defer release()
	pod, err := a.openPod(m.Netns)
	if err != nil {
		return nic, err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	err = within(pod, func(c *rtnl.Conn) error {
		nic, err = a.configure(ctx, c, m, rtnl.Link{})
		return err
	})
	return nic, err
}

// configure does so by a connection in the pod's namespace, for a link that has
// just come there, or one that has to be looked up.
func (a *Agent) configure(ctx context.Context, c *rtnl.Conn, m vnic.Move, arrived rtnl.Link) (vnic.NIC, error) {
	s := setup{Agent: a, c: c, m: m, want: wanted(m), link: arrived}
	nic, err := s.run(ctx)
	if err != nil {
		return nic, fmt.Errorf("configure vnic %s in pod %s: %w", m.MAC, m.Netns, err)
	}
	return nic, nil
}

// wanted returns the addresses that a vNIC is to have.
func wanted(m vnic.Move) []netip.Prefix {
	want := slices.Clone(m.Addresses)
	if slices.ContainsFunc(want, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		if ll := netip.PrefixFrom(m.MAC.LinkLocal(), 64); !slices.Contains(want, ll) {
			want = append(want, ll)
		}
	}
	return want
}

// setup is one configuration of a vNIC. It runs inside of the pod's namespace.
type setup struct {
	*Agent
	c    *rtnl.Conn
	m    vnic.Move
	want []netip.Prefix

	link   rtnl.Link
	addrs  []rtnl.Addr
	routes []rtnl.Route // as far as they were asked for
}

func (s *setup) run(ctx context.Context) (nic vnic.NIC, err error) {
	if s.link.Index == 0 {
		err := s.c.Do(rtnl.GetLink(&s.link, s.m.Interface).Tolerate(unix.ENODEV), rtnl.GetAddrs(&s.addrs))
		if err != nil {
			return nic, err
		}
	}
	if !s.link.HasMAC(s.m.MAC) {
		return nic, fmt.Errorf("it is not there as %s: %w; it has to be moved first", s.m.Interface, vnic.ErrNICMissing)
	}
	if err := s.queues(); err != nil {
		return nic, err
	}
	s.sysctl("accept_ra", "0")
	if err := s.apply(); err != nil {
		return nic, err
	}
	if nic, err = s.remember(); err != nil {
		return nic, err
	}
	s.announce(ctx)
	return nic, failpoint.Hit("guest.configured")
}

// queues sets the number of queue pairs, as far as the device has them.
func (s *setup) queues() error {
	if s.m.Queues <= 1 {
		return nil // a device starts with one
	}
	n, err := s.c.SetQueues(s.m.Interface, s.m.Queues)
	if errors.Is(err, vnic.ErrUnsupported) {
		n, err = 1, nil
	}
	if n < s.m.Queues {
		s.log.Warn("fewer queues than wanted", slog.String("id", string(s.m.ID)), slog.Int("queues", n), slog.Int("wanted", s.m.Queues))
	}
	return err
}

// apply makes the kernel's state the wanted one.
func (s *setup) apply() error {
	if s.link.Up { // it was configured before: stale routes may be there
		if err := s.c.Do(rtnl.GetRoutes(&s.routes)); err != nil {
			return err
		}
	}
	err := s.c.Do(s.plan()...)
	if errors.Is(err, unix.EACCES) { // IPv6 is off on this interface
		s.sysctl("disable_ipv6", "0")
		err = s.c.Do(s.plan()...)
	}
	if errors.Is(err, unix.EEXIST) { // a route: ours from before, or another's
		if err := s.c.Do(rtnl.GetRoutes(&s.routes)); err != nil {
			return err
		}
		if err = s.c.Do(s.plan()...); errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("another interface has this route already: %w: %w; attach without default routes", vnic.ErrConflict, err)
		}
	}
	return err
}

// plan returns the requests that lead from what is to what is wanted, to be
// sent in one go. Addresses come before up, so that none of the kernel's own
// making appear; routes come after, since they need the link up. The last
// request looks the link up again.
func (s *setup) plan() []rtnl.Request {
	var reqs []rtnl.Request
	add := func(r rtnl.Request) { reqs = append(reqs, r) }
	i := s.link.Index
	have := prefixes(s.addrs, i)
	for _, p := range have {
		if !slices.Contains(s.want, p) {
			add(rtnl.DelAddr(i, p).Tolerate(unix.EADDRNOTAVAIL))
		}
	}
	for _, r := range s.routes {
		if r.Index == i && r.Static && !slices.Contains(s.m.Routes, r.Route) {
			add(rtnl.DelRoute(r).Tolerate(unix.ESRCH))
		}
	}
	if s.link.MAC != s.m.MAC { // changed by the pod, or by what configures NICs in the VM
		add(rtnl.SetLink(i, rtnl.Change{MAC: s.m.MAC}))
	}
	if s.m.MTU != 0 && s.m.MTU != s.link.MTU {
		add(rtnl.SetLink(i, rtnl.Change{MTU: s.m.MTU}))
	}
	add(rtnl.NoAutoAddress(i).Tolerate(unix.EAFNOSUPPORT))
	for _, p := range s.want {
		if !slices.Contains(have, p) {
			add(rtnl.SetAddr(i, p))
		}
	}
	if !s.link.Up {
		add(rtnl.SetUp(i))
		if slices.ContainsFunc(s.want, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			add(rtnl.AddMulticastRoute(i).Tolerate(unix.EEXIST))
		}
	}
	for _, r := range s.m.Routes {
		route := rtnl.Route{Route: r, Index: i, OnLink: s.onLink(r.Gateway)}
		if !slices.ContainsFunc(s.routes, func(h rtnl.Route) bool { return h.Index == i && h.Route == r }) {
			add(rtnl.AddRoute(route))
		}
	}
	for _, n := range s.m.Neighbours {
		add(rtnl.SetNeighbour(i, n.Address, n.MAC))
	}
	add(rtnl.GetLinkIndex(&s.link, i))
	return reqs
}

// onLink tells whether a gateway is in the prefix of none of the addresses.
func (s *setup) onLink(gateway netip.Addr) bool {
	return gateway.IsValid() && !slices.ContainsFunc(s.want, func(p netip.Prefix) bool { return p.Contains(gateway) })
}

// remember takes down what was done and returns it.
func (s *setup) remember() (vnic.NIC, error) {
	r, known := s.records.get(s.m.MAC)
	if !known || !r.inPod {
		n, err := describe(s.c, s.link)
		if err != nil {
			return n, err
		}
		r = record{mac: s.m.MAC, inPod: true, pci: n.PCI, driver: n.Driver}
	}
	r.id, r.netns = s.m.ID, s.m.Netns
	s.records.put(r)
	n := nicOf(s.link)
	n.ID, n.Netns, n.PCI, n.Driver, n.Addresses = r.id, r.netns, r.pci, r.driver, s.want
	return n, nil
}

// announce tells the neighbours. It waits for the carrier, without which no
// frame gets out; when there is none, the neighbours have to ask.
func (s *setup) announce(ctx context.Context) {
	log := s.log.With(slog.String("id", string(s.m.ID)))
	if !s.link.Carrier && !s.awaitCarrier(ctx) {
		log.Warn("vnic is up without carrier, its addresses are not announced")
		return
	}
	sock, err := announce.Open()
	if err != nil {
		log.Warn("announce addresses", slog.Any("error", err))
		return
	}
	addrs := make([]netip.Addr, len(s.want))
	for i, p := range s.want {
		addrs[i] = p.Addr()
	}
	if err := sock.Send(s.link.Index, s.link.MAC, addrs); err != nil {
		log.Warn("announce addresses", slog.Any("error", err))
	}
	// The close takes longer than all else here; no one needs to wait for it.
	s.wg.Go(func() {
		if err := sock.Close(); err != nil {
			log.Warn("close", slog.Any("error", err))
		}
	})
}

// awaitCarrier waits until the link has its carrier, and tells whether it has.
func (s *setup) awaitCarrier(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.carrierWait)
	defer cancel()
	mon, err := rtnl.NewMonitor(s.c)
	if err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = mon.Close() }) // makes Next return
	defer func() {
		if stop() {
			_ = mon.Close()
		}
	}()
	for {
		u, err := mon.Next()
		if err != nil {
			return false
		}
		for _, ch := range u.Changes {
			if ch.Link.Index == s.link.Index && ch.Link.Carrier && !ch.Gone {
				return true
			}
		}
	}
}

// sysctl sets an IPv6 setting of the interface. The thread is in the pod, so
// /proc/sys/net shows the pod's. There is no such file where IPv6 is missing.
func (s *setup) sysctl(name, value string) {
	path := "/proc/sys/net/ipv6/conf/" + s.m.Interface + "/" + name
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return
	}
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		s.log.Warn("set sysctl", slog.String("path", path), slog.String("netns", s.m.Netns), slog.Any("error", err))
	}
}

// prefixes returns the addresses of the link of that index.
func prefixes(addrs []rtnl.Addr, index int) []netip.Prefix {
	var ps []netip.Prefix
	for _, a := range addrs {
		if a.Index == index {
			ps = append(ps, a.Prefix)
		}
	}
	return ps
}
