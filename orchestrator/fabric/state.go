package fabric

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/brfuse/brfuse/vnic"
)

// state is what the store says, indexed. Its methods are for one goroutine.
type state struct {
	self     string
	underlay netip.Addr
	networks map[string]*network
	services map[string]*service
}

// network is the endpoints of one.
type network struct {
	byID   map[vnic.ID]vnic.Endpoint
	byMAC  map[vnic.MAC]vnic.ID
	leased [2]int // addresses, of IPv4 and IPv6
}

// count counts the addresses of an endpoint, by 1 or -1.
func (n *network) count(e vnic.Endpoint, by int) {
	for _, a := range e.Addresses {
		if a.Is4() {
			n.leased[0] += by
		} else {
			n.leased[1] += by
		}
	}
}

// service is one with the endpoints that it leads to.
type service struct {
	vnic.Service
	ready map[vnic.ID]bool
}

func newState(cfg Config) *state {
	return &state{self: cfg.Self, underlay: cfg.Underlay, networks: map[string]*network{}, services: map[string]*service{}}
}

// changes are what a batch of events touched.
type changes struct {
	macs     map[string]map[vnic.MAC]bool // by network
	ids      map[string]map[vnic.ID]bool  // by network
	services bool
}

func (c *changes) touch(network string, id vnic.ID, macs ...vnic.MAC) {
	if c.macs == nil {
		c.macs, c.ids = map[string]map[vnic.MAC]bool{}, map[string]map[vnic.ID]bool{}
	}
	if c.macs[network] == nil {
		c.macs[network], c.ids[network] = map[vnic.MAC]bool{}, map[vnic.ID]bool{}
	}
	c.ids[network][id] = true
	for _, m := range macs {
		if !m.IsZero() {
			c.macs[network][m] = true
		}
	}
}

// put takes an endpoint in.
func (s *state) put(e vnic.Endpoint, c *changes) {
	n := s.networks[e.Network]
	if n == nil {
		n = &network{byID: map[vnic.ID]vnic.Endpoint{}, byMAC: map[vnic.MAC]vnic.ID{}}
		s.networks[e.Network] = n
	}
	old, had := n.byID[e.ID]
	if had && old.Equal(e) {
		return
	}
	if had && n.byMAC[old.MAC] == e.ID {
		delete(n.byMAC, old.MAC)
	}
	n.count(old, -1)
	n.count(e, 1)
	n.byID[e.ID], n.byMAC[e.MAC] = e, e.ID
	c.touch(e.Network, e.ID, old.MAC, e.MAC)
	s.reselect(e, c)
}

// drop forgets an endpoint.
func (s *state) drop(name string, id vnic.ID, c *changes) {
	n := s.networks[name]
	if n == nil {
		return
	}
	old, had := n.byID[id]
	if !had {
		return
	}
	n.count(old, -1)
	delete(n.byID, id)
	if n.byMAC[old.MAC] == id {
		delete(n.byMAC, old.MAC)
	}
	if len(n.byID) == 0 {
		delete(s.networks, name)
	}
	c.touch(name, id, old.MAC)
	old.Ready = false
	s.reselect(old, c)
}

// reselect sees which services lead to an endpoint that changed.
func (s *state) reselect(e vnic.Endpoint, c *changes) {
	for _, svc := range s.services {
		if svc.Network != e.Network {
			continue
		}
		had, has := svc.ready[e.ID], e.Ready && svc.Selects(e)
		if has {
			svc.ready[e.ID] = true
		} else {
			delete(svc.ready, e.ID)
		}
		c.services = c.services || had || has
	}
}

// putService takes a service in.
func (s *state) putService(v vnic.Service, c *changes) {
	s.dropService(v.Name, c)
	svc := &service{Service: v, ready: map[vnic.ID]bool{}}
	if n := s.networks[v.Network]; n != nil {
		for id, e := range n.byID {
			if v.Selects(e) {
				c.touch(v.Network, id)
			}
			if e.Ready && v.Selects(e) {
				svc.ready[id] = true
			}
		}
	}
	s.services[v.Name] = svc
	c.services = true
}

func (s *state) dropService(name string, c *changes) {
	svc := s.services[name]
	if svc == nil {
		return
	}
	if n := s.networks[svc.Network]; n != nil {
		for id, e := range n.byID {
			if svc.Selects(e) {
				c.touch(svc.Network, id)
			}
		}
	}
	delete(s.services, name)
	c.services = true
}

// remote says whether an endpoint is behind another hypervisor that frames can be
// sent to.
func (s *state) remote(e vnic.Endpoint) bool {
	return e.Hypervisor != s.self && e.Underlay.IsValid() && (!s.underlay.IsValid() || e.Underlay.Is4() == s.underlay.Is4())
}

func station(e vnic.Endpoint) vnic.Station {
	return vnic.Station{MAC: e.MAC, Addresses: e.Addresses, Via: e.Underlay}
}

// stations returns all of a network that are behind others.
func (s *state) stations(name string) []vnic.Station {
	n := s.networks[name]
	if n == nil {
		return nil
	}
	list := make([]vnic.Station, 0, len(n.byID))
	for mac, id := range n.byMAC {
		if e := n.byID[id]; s.remote(e) && e.MAC == mac {
			list = append(list, station(e))
		}
	}
	return list
}

// stationChanges sorts MACs that were touched by what is to be done about them.
func (s *state) stationChanges(name string, macs map[vnic.MAC]bool) (set []vnic.Station, remove []vnic.MAC) {
	n := s.networks[name]
	for mac := range macs {
		if n != nil {
			if id, ok := n.byMAC[mac]; ok && s.remote(n.byID[id]) {
				set = append(set, station(n.byID[id]))
				continue
			}
		}
		remove = append(remove, mac)
	}
	return set, remove
}

// pods returns those of a network, in the order of their ids.
func (s *state) pods(name string) []Named {
	n := s.networks[name]
	if n == nil {
		return nil
	}
	list := make([]Named, 0, len(n.byID))
	for _, id := range slices.Sorted(maps.Keys(n.byID)) {
		list = append(list, s.named(n.byID[id]))
	}
	return list
}

func (s *state) named(e vnic.Endpoint) Named {
	p := Named{Endpoint: e}
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		if svc := s.services[name]; svc.Selects(e) {
			p.Services = append(p.Services, svc.Service)
		}
	}
	return p
}

// podChanges sorts ids that were touched by what is to be done about their names.
func (s *state) podChanges(name string, ids map[vnic.ID]bool) (puts []Named, deletes []vnic.ID) {
	n := s.networks[name]
	for id := range ids {
		if n != nil {
			if e, ok := n.byID[id]; ok {
				puts = append(puts, s.named(e))
				continue
			}
		}
		deletes = append(deletes, id)
	}
	return puts, deletes
}

// backends returns all services in the order of their names, their targets in order.
func (s *state) backends() []vnic.Backend {
	list := make([]vnic.Backend, 0, len(s.services))
	for _, name := range slices.Sorted(maps.Keys(s.services)) {
		svc := s.services[name]
		b := vnic.Backend{Service: svc.Service}
		for id := range svc.ready {
			e := s.networks[svc.Network].byID[id]
			local := e.Hypervisor == s.self
			if !local && svc.Mode == vnic.ServiceHost {
				continue
			}
			for _, a := range e.Addresses {
				b.Targets = append(b.Targets, vnic.Target{To: netip.AddrPortFrom(a, svc.Target), Local: local})
			}
		}
		slices.SortFunc(b.Targets, func(x, y vnic.Target) int { return x.To.Compare(y.To) })
		list = append(list, b)
	}
	return list
}

// needed returns the networks that services lead into from this hypervisor, though
// none of their pods may be here.
func (s *state) needed() map[string]bool {
	nets := map[string]bool{}
	for _, svc := range s.services {
		if svc.Mode == vnic.ServiceIngress && len(svc.ready) > 0 {
			nets[svc.Network] = true
		}
	}
	return nets
}
