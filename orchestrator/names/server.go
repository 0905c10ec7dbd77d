package names

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// Server answers the DNS queries of the pods of several networks. It is safe for
// concurrent use.
type Server struct {
	config    Config
	upstreams *upstreams

	mu       sync.RWMutex // guards what follows
	networks map[string]*served
}

// New returns a server of no network yet.
func New(c Config) *Server {
	c = c.withDefaults()
	return &Server{config: c, upstreams: newUpstreams(c), networks: map[string]*served{}}
}

// Serve starts to answer on the gateways of a network, and returns; it goes on until
// [Server.Stop] or [Server.Close], whatever becomes of ctx. The same network again is
// no error; one of its name with other subnets or gateways is a [vnic.ErrConflict],
// and one without gateways a [vnic.ErrInvalid].
func (s *Server) Serve(ctx context.Context, n vnic.Network) error {
	if len(n.Gateways) == 0 {
		return fmt.Errorf("network %s: no gateway to answer names on; give it a subnet: %w", n.Name, vnic.ErrInvalid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.networks[n.Name]; o != nil {
		if slices.Equal(o.network.Subnets, n.Subnets) && slices.Equal(o.network.Gateways, n.Gateways) {
			return nil
		}
		return fmt.Errorf("names of network %s are served on %v; stop that first: %w", n.Name, o.network.Gateways, vnic.ErrConflict)
	}
	sv, err := s.open(ctx, n)
	if err != nil {
		return fmt.Errorf("serve names: %w", err)
	}
	s.networks[n.Name] = sv
	return nil
}

// open starts the servers of a network.
func (s *Server) open(ctx context.Context, n vnic.Network) (*served, error) {
	z, err := newZone(s.config, n)
	if err != nil {
		return nil, err
	}
	sv := &served{
		network: n, zone: z, upstreams: s.upstreams,
		forwards: newGate(s.config.Forwards, s.config.ForwardsPerClient),
		conns:    newGate(maxConns, maxConnsPerClient),
		log:      s.config.Logger.With("network", n.Name),
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	sv.cancel = cancel
	for _, gw := range n.Gateways {
		udp, l, err := s.config.Listen(ctx, n, netip.AddrPortFrom(gw, port))
		if err != nil {
			s.end(sv)
			return nil, err
		}
		s.upstreams.listen(addrPort(udp.LocalAddr()), 1)
		sv.run(life, udp, l)
	}
	return sv, nil
}

// end stops a network's servers.
func (s *Server) end(sv *served) {
	sv.end()
	for _, r := range sv.running {
		if r.PacketConn != nil {
			s.upstreams.listen(r.address, -1)
		}
	}
}

// Stop ends the answers for a network and forgets its records. It returns when its
// sockets are closed. A network that isn't served is no error.
func (s *Server) Stop(network string) {
	s.mu.Lock()
	sv := s.networks[network]
	delete(s.networks, network)
	s.mu.Unlock()
	if sv != nil {
		s.end(sv)
	}
}

// Close stops all networks.
func (s *Server) Close() {
	s.mu.Lock()
	all := s.networks
	s.networks = map[string]*served{}
	s.mu.Unlock()
	for _, sv := range all {
		s.end(sv)
	}
}

// get returns a network that is served, or a [vnic.ErrUnknownNetwork].
func (s *Server) get(network string) (*served, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sv := s.networks[network]; sv != nil {
		return sv, nil
	}
	return nil, fmt.Errorf("names of network %s are not served; serve it first: %w", network, vnic.ErrUnknownNetwork)
}

// Stats returns the numbers of each network that is served.
func (s *Server) Stats() map[string]Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make(map[string]Stats, len(s.networks))
	for name, sv := range s.networks {
		st := sv.stats.read()
		st.Records, st.Unserved = sv.zone.size()
		all[name] = st
	}
	return all
}
