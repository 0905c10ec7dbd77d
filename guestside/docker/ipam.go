package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// ipam is the address driver: docker's pools are the subnets of brfuse's networks,
// and its addresses are reserved by the host, until a vNIC takes them.
type ipam struct {
	d *Driver

	mu    sync.Mutex          // guards what is below
	held  map[place]int       // how often dockerd has an address, more than it gave it back
	asked map[string]int      // requests of a pool in a row, without any use, by PoolID
	idle  map[place]time.Time // since when reserved addresses are known that no vNIC took over
	list  bool                // the host may have reserved more than is known
}

// place is an address of a network of brfuse.
type place struct {
	network string
	addr    netip.Addr
}

// Options of the address driver.
const (
	optAddressType = "RequestAddressType"
	typeGateway    = "com.docker.network.gateway"
)

// maxAsked is how often a pool is given in a row. dockerd asks on and on when the
// pool is one that the guest has a route to, and takes any other.
const maxAsked = 8

// addressSpaces names one for both scopes: of global ones newer versions of dockerd
// don't expect that they choose another pool when this guest has a route to it.
func (p *ipam) addressSpaces(context.Context, struct{}) (addressSpaces, error) {
	return addressSpaces{p.d.name, p.d.name}, nil
}

// poolID is what dockerd names a pool by.
func poolID(network string, ipv6 bool) string {
	if ipv6 {
		return network + "/v6"
	}
	return network + "/v4"
}

// parsePoolID is the reverse of poolID.
func parsePoolID(id string) (network string, ipv6 bool, err error) {
	network, family, _ := strings.Cut(id, "/")
	if vnic.CheckNetworkName(network) != nil || family != "v4" && family != "v6" {
		return "", false, fmt.Errorf("%w: pool %.128q is none of brfuse's", errMalformed, id)
	}
	return network, family == "v6", nil
}

// requestPool gives a network's subnet.
func (p *ipam) requestPool(ctx context.Context, q poolRequest) (requestedPool, error) {
	id, found, err := p.find(ctx, q)
	if err != nil {
		return requestedPool{}, fmt.Errorf("request pool: %w", err)
	}
	if err := p.notAgain(id, found, q.Pool == ""); err != nil {
		return requestedPool{}, fmt.Errorf("request pool: %w", err)
	}
	err = p.d.book.update(func(s *state) bool {
		next := found
		if old := s.Pools[id]; old != nil {
			next.Refs = old.Refs
		}
		next.Refs++
		s.Pools[id] = &next
		return true
	})
	return requestedPool{PoolID: id, Pool: found.Subnet.String()}, err
}

// find returns the pool that is asked for.
func (p *ipam) find(ctx context.Context, q poolRequest) (string, pool, error) {
	name := ""
	for _, k := range slices.Sorted(maps.Keys(q.Options)) {
		switch {
		case strings.TrimPrefix(k, ownPrefix) == "network":
			name = q.Options[k]
		case !strings.HasPrefix(k, "com.docker."):
			return "", pool{}, fmt.Errorf("option %s of --ipam-opt: unknown; there is network: %w", k, vnic.ErrInvalid)
		}
	}
	if q.SubPool != "" {
		return "", pool{}, fmt.Errorf("--ip-range %s: the hypervisor chooses from the whole subnet; leave it out: %w", q.SubPool, vnic.ErrInvalid)
	}
	want, err := optional(q.Pool, netip.ParsePrefix)
	if err != nil {
		return "", pool{}, fmt.Errorf("%w: pool: %w", errMalformed, err)
	}
	var subnets []netip.Prefix
	if want.IsValid() {
		subnets = append(subnets, want)
	}
	n, err := p.d.choose(ctx, name, subnets)
	if err != nil {
		return "", pool{}, err
	}
	for i, s := range n.Subnets {
		if s.Addr().Is6() != q.V6 || i >= len(n.Gateways) {
			continue
		}
		if want.IsValid() && want != s {
			return "", pool{}, fmt.Errorf("--subnet %s: network %s has %s; leave it out: %w", want, n.Name, s, vnic.ErrInvalid)
		}
		return poolID(n.Name, q.V6), pool{Network: n.Name, Subnet: s, Gateway: n.Gateways[i]}, nil
	}
	if q.V6 {
		return "", pool{}, fmt.Errorf("network %s has no IPv6 subnet; leave --ipv6 out: %w", n.Name, vnic.ErrInvalid)
	}
	return "", pool{}, fmt.Errorf("network %s has no IPv4 subnet; leave addresses to brfuse by `--ipam-driver null`: %w", n.Name, vnic.ErrInvalid)
}

// notAgain fails when dockerd asks for the pool in a circle.
func (p *ipam) notAgain(id string, found pool, unasked bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !unasked {
		delete(p.asked, id)
		return nil
	}
	if p.asked[id]++; p.asked[id] <= maxAsked {
		return nil
	}
	delete(p.asked, id)
	return fmt.Errorf("network %s: docker refuses its subnet unasked, since this vm has an address or a route in it; say `--subnet %s`: %w", found.Network, found.Subnet, vnic.ErrInUse)
}

// used notes that dockerd has accepted the pools of a network.
func (p *ipam) used(network string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.asked, poolID(network, false))
	delete(p.asked, poolID(network, true))
}

// releasePool ends one use of a pool. It succeeds when there is none.
func (p *ipam) releasePool(_ context.Context, q releasePoolRequest) (empty, error) {
	return empty{}, p.d.book.update(func(s *state) bool {
		known := s.Pools[q.PoolID]
		if known == nil {
			return false
		}
		next := *known
		if next.Refs--; next.Refs > 0 {
			s.Pools[q.PoolID] = &next
		} else {
			delete(s.Pools, q.PoolID)
		}
		return true
	})
}

// known returns a pool, which the host is asked for when it isn't in the book.
func (p *ipam) known(ctx context.Context, id string) (pool, error) {
	name, ipv6, err := parsePoolID(id)
	if err != nil {
		return pool{}, err
	}
	var known *pool
	p.d.book.view(func(s *state) { known = s.Pools[id] })
	if known != nil {
		return *known, nil
	}
	_, found, err := p.find(ctx, poolRequest{Options: map[string]string{"network": name}, V6: ipv6})
	return found, err
}

// requestAddress gives a gateway's address, or reserves one.
func (p *ipam) requestAddress(ctx context.Context, q addressRequest) (requestedAddress, error) {
	pl, err := p.known(ctx, q.PoolID)
	if err != nil {
		return requestedAddress{}, fmt.Errorf("request address: %w", err)
	}
	want, err := optional(q.Address, netip.ParseAddr)
	if err != nil {
		return requestedAddress{}, fmt.Errorf("%w: address: %w", errMalformed, err)
	}
	p.used(pl.Network)
	if q.Options[optAddressType] == typeGateway {
		if want.IsValid() && want != pl.Gateway {
			return requestedAddress{}, fmt.Errorf("request address: --gateway %s: network %s has %s; leave it out: %w", want, pl.Network, pl.Gateway, vnic.ErrInvalid)
		}
		return requestedAddress{netip.PrefixFrom(pl.Gateway, pl.Subnet.Bits()).String()}, nil
	}
	if want.IsValid() && !pl.Subnet.Contains(want) {
		return requestedAddress{}, fmt.Errorf("request address %s: network %s has %s: %w", want, pl.Network, pl.Subnet, vnic.ErrAddressOutside)
	}
	if want.IsValid() && p.reserved(place{pl.Network, want}) {
		return requestedAddress{}, fmt.Errorf("request address %s in network %s: docker has reserved it already: %w", want, pl.Network, vnic.ErrAddressTaken)
	}
	got, err := p.d.cfg.Host.Reserve(ctx, pl.Network, want, pl.Subnet.Addr().Is6())
	p.mu.Lock()
	if err != nil {
		p.list = p.list || vnic.CodeOf(err) == "" || errors.Is(err, vnic.ErrHostUnavailable)
	} else {
		p.held[place{pl.Network, got.Addr()}]++
		p.idle[place{pl.Network, got.Addr()}] = time.Now()
	}
	p.mu.Unlock()
	p.d.poke()
	if err != nil {
		return requestedAddress{}, fmt.Errorf("request address in network %s: %w", pl.Network, err)
	}
	return requestedAddress{netip.PrefixFrom(got.Addr(), pl.Subnet.Bits()).String()}, nil
}

// taken notes that a vNIC has taken reserved addresses over.
func (p *ipam) taken(network string, addrs []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		delete(p.idle, place{network, a})
	}
}

// releaseAddress gives a reserved address back. It succeeds when there is none, or
// when a vNIC took it over. When the host is away it is given back in time.
func (p *ipam) releaseAddress(ctx context.Context, q addressRequest) (empty, error) {
	name, _, err := parsePoolID(q.PoolID)
	if err != nil {
		return empty{}, err
	}
	addr, err := netip.ParseAddr(q.Address)
	if err != nil {
		return empty{}, fmt.Errorf("%w: address: %w", errMalformed, err)
	}
	if p.release(place{name, addr}) > 0 {
		return empty{}, nil // dockerd has given it to another container meanwhile
	}
	p.unreserve(ctx, place{name, addr})
	p.d.poke()
	return empty{}, nil
}

// release returns how many uses of an address are left.
func (p *ipam) release(at place) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.held[at] - 1
	if left > 0 {
		p.held[at] = left
		return left
	}
	delete(p.held, at)
	delete(p.idle, at)
	return 0
}

// unreserve gives an address back, or notes that the host has it still. An address
// that a vNIC took over stays that one's.
func (p *ipam) unreserve(ctx context.Context, at place) {
	ctx, cancel := context.WithTimeout(ctx, p.d.cfg.Timeout/4)
	defer cancel()
	err := p.d.cfg.Host.Unreserve(ctx, at.network, []netip.Addr{at.addr})
	if err == nil || errors.Is(err, vnic.ErrUnknownNetwork) {
		return
	}
	p.d.log.Warn("an address is not given back yet; it will be later", "network", at.network, "address", at.addr, "error", err)
	p.listAgain()
}
