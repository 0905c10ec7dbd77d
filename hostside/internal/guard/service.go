package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Service is a port of the host, on all of its addresses, that leads to one of several
// pods. Which one is decided at random for each connection.
type Service struct {
	Name     string
	Protocol string   // [vnic.TCP] or [vnic.UDP]
	Port     uint16   // the host's
	Targets  []Target // without any, the port is as if there was no service
	// Source4 and Source6 are the host's own addresses in the network of the targets
	// that are on other hosts: what is led to those comes from there, so that the
	// answers pass this host. Without one, remote targets of its family are left out.
	Source4, Source6 netip.Addr
}

// Target is a pod's port that a service leads to.
type Target struct {
	To    netip.AddrPort
	Local bool // on this host, which its answers pass whoever asked
}

// serviceKey is a port of the host, of one family.
type serviceKey struct {
	v6       bool
	protocol byte
	port     uint16
}

// served is a service of one family as the maps have it.
type served struct {
	name    string
	targets []netip.AddrPort          // each at its index
	sources map[netip.Addr]netip.Addr // by the addresses of remote targets
}

func (s served) equal(o served) bool {
	return s.name == o.name && slices.Equal(s.targets, o.targets) && maps.Equal(s.sources, o.sources)
}

// SetServices replaces all services, in one transaction that touches only what
// changes. Connections that are established stay as they are, those to targets that
// are gone too: the caller makes the kernel forget what [Change.Stale] says. A
// malformed service is a [vnic.ErrInvalid], and then nothing has changed; one that is
// in another's way makes a problem of the Change. A port that is published for a vNIC
// leads there, and not to a service.
func (g *Guard) SetServices(_ context.Context, services []Service) (Change, error) {
	now, problems, err := plan(services)
	if err != nil {
		return Change{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.services
	for key, s := range now {
		s.targets = arrange(old[key].targets, s.targets)
		now[key] = s
	}
	g.services = now
	if err := g.serveLocked(old); err != nil {
		g.services = old
		return Change{}, fmt.Errorf("set services: %w", err)
	}
	return changeOf(old, now, append(problems, g.shadowedLocked()...)), nil
}

// Services returns the services in force, in the order of protocol and port, with
// their targets ordered by address.
func (g *Guard) Services() []Service {
	g.mu.Lock()
	defer g.mu.Unlock()
	byPort := map[serviceKey]Service{}
	for key, s := range g.services {
		both := serviceKey{protocol: key.protocol, port: key.port}
		service := byPort[both]
		service.Name, service.Port, service.Protocol = s.name, key.port, protocolName(key.protocol)
		for _, to := range s.targets {
			source, remote := s.sources[to.Addr()]
			service.Targets = append(service.Targets, Target{To: to, Local: !remote})
			switch {
			case source.Is4():
				service.Source4 = source
			case source.Is6():
				service.Source6 = source
			}
		}
		slices.SortFunc(service.Targets, func(a, b Target) int { return a.To.Compare(b.To) })
		byPort[both] = service
	}
	return slices.SortedFunc(maps.Values(byPort), func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
}

// plan returns what services come to. Of those of one port the first by name has it.
func plan(services []Service) (map[serviceKey]served, []error, error) {
	all, owners := map[serviceKey]served{}, map[serviceKey]string{}
	var problems []error
	for _, s := range slices.SortedStableFunc(slices.Values(services), func(a, b Service) int { return cmp.Compare(a.Name, b.Name) }) {
		if err := s.check(); err != nil {
			return nil, nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
		port := serviceKey{protocol: protocols[s.Protocol], port: s.Port}
		if owner, ok := owners[port]; ok {
			problems = append(problems, &vnic.TakenError{
				What: fmt.Sprintf("port %d/%s of service %s", s.Port, s.Protocol, s.Name), Why: "is service " + owner + "'s; choose another", Err: vnic.ErrPortTaken,
			})
			continue
		}
		owners[port] = s.Name
		for _, v6 := range []bool{false, true} {
			now, left := s.serve(v6)
			if left > 0 {
				problems = append(problems, fmt.Errorf("service %s: %d targets on other hosts are left out: this host has no %s address of its own in their network: %w",
					s.Name, left, familyName(v6), vnic.ErrUnsupported))
			}
			if len(now.targets) > 0 {
				port.v6 = v6
				all[port] = now
			}
		}
	}
	return all, problems, nil
}

// serve returns what s comes to in one family, and how many targets are left out.
func (s Service) serve(v6 bool) (now served, left int) {
	source := s.Source4
	if v6 {
		source = s.Source6
	}
	now = served{name: s.Name, sources: map[netip.Addr]netip.Addr{}}
	seen := make(map[netip.AddrPort]bool, len(s.Targets))
	for _, t := range s.Targets {
		switch {
		case t.To.Addr().Is6() != v6 || seen[t.To]:
			continue
		case !t.Local && !source.IsValid():
			left++
			continue
		case !t.Local:
			now.sources[t.To.Addr()] = source
		}
		seen[t.To] = true
		now.targets = append(now.targets, t.To)
	}
	return now, left
}

func (s Service) check() error {
	switch {
	case s.Protocol != vnic.TCP && s.Protocol != vnic.UDP:
		return fmt.Errorf("protocol %q is not tcp or udp: %w", s.Protocol, vnic.ErrInvalid)
	case s.Port == 0:
		return fmt.Errorf("port 0 is none: %w", vnic.ErrInvalid)
	case s.Source4.IsValid() && !s.Source4.Is4(), s.Source6.IsValid() && (!s.Source6.Is6() || s.Source6.Is4In6() || s.Source6.Zone() != ""):
		return fmt.Errorf("source address %s or %s is not one of its family: %w", s.Source4, s.Source6, vnic.ErrInvalid)
	}
	for _, t := range s.Targets {
		if a := t.To.Addr(); !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || t.To.Port() == 0 {
			return fmt.Errorf("target %s is no address and port of a pod: %w", t.To, vnic.ErrInvalid)
		}
	}
	return nil
}

// arrange returns the targets of now in an order in which as many as can be are where
// they are in old: what changes in the maps is what changes in the targets.
func arrange(old, now []netip.AddrPort) []netip.AddrPort {
	if slices.Equal(old, now) {
		return old
	}
	want := make(map[netip.AddrPort]bool, len(now))
	for _, t := range now {
		want[t] = true
	}
	placed := make([]netip.AddrPort, len(now))
	for i, t := range old[:min(len(old), len(now))] {
		if want[t] {
			placed[i] = t
			delete(want, t)
		}
	}
	free := 0
	for _, t := range now {
		if !want[t] {
			continue
		}
		for placed[free].IsValid() {
			free++
		}
		placed[free] = t
	}
	return placed
}

// serveLocked turns the services in force into those of g.
func (g *Guard) serveLocked(old map[serviceKey]served) error {
	switch {
	case len(old)+len(g.services) == 0:
		return nil
	case !g.has.serving || g.emptyLocked():
		return g.applyLocked()
	}
	before, after := elements{}, elements{}
	for key, s := range old {
		if !s.equal(g.services[key]) {
			before.addService(key, s)
		}
	}
	for key, s := range g.services {
		if !s.equal(old[key]) {
			after.addService(key, s)
		}
	}
	had, needed := spreadsOf(old), spreadsOf(g.services)
	now, later := before.without(after).parted(after)
	// Packets are on their way meanwhile. One that a commit overtakes has the rules of
	// before it, and yet finds in the maps what came with it: so chains are there before
	// maps lead to them. And what a packet is led by before routing and behind it may be
	// of before and after a commit: so sources stay until nothing leads to their targets.
	steps := []func(*nftables.Conn) error{
		func(c *nftables.Conn) error {
			for _, s := range needed {
				if !slices.Contains(had, s) {
					addChains(c, s.rules())
				}
			}
			return nil
		},
		func(c *nftables.Conn) error {
			return cmp.Or(now.each(c.SetDeleteElements), after.without(before).each(c.SetAddElements))
		},
		func(c *nftables.Conn) error {
			for _, s := range had {
				if !slices.Contains(needed, s) {
					c.DelChain(s.chain())
				}
			}
			return later.each(c.SetDeleteElements)
		},
	}
	var err error
	for i := 0; i < len(steps) && err == nil; i++ {
		err = g.transactLocked(steps[i]) // nothing is sent for one that has nothing to do
	}
	// As in changeLocked; EBUSY: a map has something else at that key, or uses the chain.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		g.log.Warn("packet filter was changed by someone else, restoring it", "table", tableName)
		return g.applyLocked()
	}
	return err
}

// shadowedLocked returns a problem for each published port that is in the way of a
// service.
func (g *Guard) shadowedLocked() []error {
	var problems []error
	for _, tap := range slices.Sorted(maps.Keys(g.ports)) {
		for _, p := range g.ports[tap].Published {
			s, ok := g.services[serviceKey{p.To.Addr().Is6(), p.Number(), p.Host.Port()}]
			if ok {
				problems = append(problems, &vnic.TakenError{
					What: fmt.Sprintf("port %s/%s of service %s", p.Host, p.Protocol, s.name), Why: "is published for the vNIC of " + tap + "; choose another", Err: vnic.ErrPortTaken,
				})
			}
		}
	}
	return problems
}

func protocolName(number byte) string {
	for name, n := range protocols {
		if n == number {
			return name
		}
	}
	return fmt.Sprint(number)
}

func familyName(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}
