package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// createNetwork remembers a docker network. It says here, and not when the first
// container starts, what doesn't go together.
func (d *Driver) createNetwork(ctx context.Context, q createNetworkRequest) (empty, error) {
	n, err := d.newNetwork(ctx, q)
	if err != nil {
		return empty{}, fmt.Errorf("create network: %w", err)
	}
	d.ipam.used(n.Name)
	conflict := false
	err = d.book.update(func(s *state) bool {
		old := s.Networks[q.NetworkID]
		conflict = old != nil && !reflect.DeepEqual(old, n)
		if old == nil {
			s.Networks[q.NetworkID] = n
		}
		return old == nil
	})
	if conflict {
		return empty{}, fmt.Errorf("create network: docker's network %s is there and differs: %w", short(q.NetworkID), vnic.ErrConflict)
	}
	return empty{}, err
}

// newNetwork returns the docker network that is asked for.
func (d *Driver) newNetwork(ctx context.Context, q createNetworkRequest) (*network, error) {
	given, err := option[map[string]string](q.Options, optGeneric)
	if err != nil {
		return nil, err
	}
	o, name, err := parseOptions(given)
	if err != nil {
		return nil, err
	}
	internal, err := option[bool](q.Options, optInternal)
	if err != nil {
		return nil, err
	}
	data := slices.Concat(q.IPv4Data, q.IPv6Data)
	v, err := d.choose(ctx, name, pools(data))
	if err != nil {
		return nil, err
	}
	n := &network{
		Name: v.Name, Subnets: v.Subnets, Gateways: v.Gateways, Options: o, Internal: internal,
	}
	if err := n.fits(data, d.name); err != nil {
		return nil, err
	}
	if o.MTU > v.MTU && v.MTU != 0 {
		return nil, fmt.Errorf("mtu %d is more than the %d of network %s: %w", o.MTU, v.MTU, v.Name, vnic.ErrInvalid)
	}
	for _, ip := range data {
		for _, a := range ip.AuxAddresses {
			n.Auxiliary = append(n.Auxiliary, a.Addr())
		}
	}
	slices.SortFunc(n.Auxiliary, netip.Addr.Compare)
	return n, nil
}

// option returns one of dockerd's options, or zero when there is none.
func option[T any](b bag, key string) (v T, err error) {
	raw, ok := b[key]
	if !ok {
		return v, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("%w: option %s: %w", errMalformed, key, err)
	}
	return v, nil
}

// pools returns the subnets of data. The one of docker's null IPAM is none.
func pools(data []ipamData) (list []netip.Prefix) {
	for _, ip := range data {
		if ip.Pool.IsValid() && ip.Pool.Bits() != 0 {
			list = append(list, ip.Pool)
		}
	}
	return list
}

// choose returns the network of brfuse that is meant: that of a name, else the one
// that has the subnets, else the default, else the only one.
func (d *Driver) choose(ctx context.Context, name string, subnets []netip.Prefix) (vnic.Network, error) {
	list, err := d.cfg.Host.Networks(ctx)
	if err != nil {
		return vnic.Network{}, fmt.Errorf("list networks: %w", err)
	}
	if len(list) == 0 {
		return vnic.Network{}, fmt.Errorf("the hypervisor has no network for this vm; make one by `brfuse network create` there, or allow it by `brfuse vm add --guest-network`: %w", vnic.ErrUnknownNetwork)
	}
	if name == "" {
		if fit := d.having(list, subnets); len(fit) == 1 {
			return fit[0], nil
		}
		name = d.cfg.Network
	}
	if name == "" {
		if len(list) == 1 {
			return list[0], nil
		}
		return vnic.Network{}, fmt.Errorf("which network of brfuse is meant? Say it by `-o network=NAME`, or for --ipam-driver by `--ipam-opt network=NAME`, with one of %s: %w", names(list), vnic.ErrUnknownNetwork)
	}
	for _, n := range list {
		if n.Name == name {
			return n, nil
		}
	}
	return vnic.Network{}, fmt.Errorf("network %s: this vm may ask for %s: %w", name, names(list), vnic.ErrUnknownNetwork)
}

// having returns the networks that have all of the subnets. When several do, those
// of them whose pools dockerd has asked for.
func (d *Driver) having(list []vnic.Network, subnets []netip.Prefix) (fit []vnic.Network) {
	if len(subnets) == 0 {
		return nil
	}
	for _, n := range list {
		if !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return !slices.Contains(n.Subnets, p) }) {
			fit = append(fit, n)
		}
	}
	if len(fit) < 2 {
		return fit
	}
	d.book.view(func(s *state) {
		fit = slices.DeleteFunc(fit, func(n vnic.Network) bool {
			p := s.Pools[poolID(n.Name, subnets[0].Addr().Is6())]
			return p == nil || p.Refs == 0
		})
	})
	return fit
}

func names(list []vnic.Network) string {
	var all []string
	for _, n := range list {
		all = append(all, n.Name)
	}
	return strings.Join(all, ", ")
}

// gateway returns the network's gateway for a subnet.
func (n *network) gateway(subnet netip.Prefix) netip.Addr {
	if i := slices.Index(n.Subnets, subnet); i >= 0 {
		return n.Gateways[i]
	}
	return netip.Addr{}
}

// fits returns what of dockerd's address pools is not the network's.
func (n *network) fits(data []ipamData, driver string) error {
	var seen []netip.Prefix
	for _, ip := range data {
		if !ip.Pool.IsValid() || ip.Pool.Bits() == 0 {
			continue
		}
		gw := n.gateway(ip.Pool)
		switch {
		case !gw.IsValid():
			return n.misfit(fmt.Sprintf("docker chose the subnet %s, and it is %s", ip.Pool, joinText(n.Subnets)), driver)
		case ip.Gateway.IsValid() && ip.Gateway.Addr() != gw:
			return n.misfit(fmt.Sprintf("docker chose the gateway %s, and it is %s", ip.Gateway.Addr(), gw), driver)
		case slices.Contains(seen, ip.Pool):
			return fmt.Errorf("subnet %s twice: %w", ip.Pool, vnic.ErrInvalid)
		}
		seen = append(seen, ip.Pool)
	}
	return nil
}

func (n *network) misfit(what, driver string) error {
	var subnets strings.Builder
	for i, p := range n.Subnets {
		fmt.Fprintf(&subnets, " --subnet %s --gateway %s", p, n.Gateways[i])
	}
	return fmt.Errorf("network %s: %s. Let brfuse choose by `--ipam-driver %s --ipam-opt network=%s`, or name them by `%s`, or leave addresses to brfuse by `--ipam-driver null`: %w",
		n.Name, what, driver, n.Name, subnets.String()[1:], vnic.ErrInvalid)
}

func joinText[T fmt.Stringer](list []T) string {
	var all []string
	for _, v := range list {
		all = append(all, v.String())
	}
	return strings.Join(all, " and ")
}

// deleteNetwork forgets a docker network, and takes away what is left of it.
func (d *Driver) deleteNetwork(_ context.Context, q networkRequest) (empty, error) {
	left := 0
	err := d.book.update(func(s *state) bool {
		if s.Networks[q.NetworkID] == nil {
			return false
		}
		delete(s.Networks, q.NetworkID)
		for id, e := range s.Endpoints {
			if e.Network == q.NetworkID {
				delete(s.Endpoints, id)
				s.Leaving[id] = struct{}{}
				left++
			}
		}
		return true
	})
	if left > 0 {
		d.log.Warn("docker deleted a network that has endpoints; they are taken away", "network", short(q.NetworkID), "endpoints", left)
	}
	d.poke()
	return empty{}, err
}

// allocateNetwork is for swarm managers, which ask it of drivers of global scope.
func allocateNetwork(_ context.Context, q allocateRequest) (allocated, error) {
	return allocated{q.Options}, nil
}

// gwAllocCheck has dockerd ask for the gateways: they are brfuse's own, and it is
// checked that they are the same.
func gwAllocCheck(context.Context, struct{}) (gateways, error) { return gateways{}, nil }

func nothing(context.Context, struct{}) (empty, error) { return empty{}, nil }
