package hostclient

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

// Networks returns the networks that this guest may ask for: their names, subnets,
// gateways and MTUs.
func (c *Client) Networks(ctx context.Context) (nets []vnic.Network, err error) {
	err = c.call(ctx, "list networks", c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		resp, err := h.Networks(ctx, &agentv1.NetworksRequest{})
		if err == nil {
			nets, err = toNetworks(resp.GetNetworks())
		}
		return err
	})
	return nets, err
}

// Ready returns why an attachment to a network can't be made now, with the error
// that [Client.Attach] would give. An empty network stands for the only one.
func (c *Client) Ready(ctx context.Context, network string) error {
	return c.call(ctx, "ask for a vnic of network "+network, c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		_, err := h.Ready(ctx, &agentv1.ReadyRequest{Network: network})
		return err
	})
}

// Reserve keeps an address of a network for a later attachment of this guest by
// docker, the wanted one, or when want is not valid any of its family. The prefix
// has the length of the network's. An address that this guest has reserved already
// is returned again: [vnic.ErrAddressTaken], [vnic.ErrAddressOutside],
// [vnic.ErrPoolExhausted].
func (c *Client) Reserve(ctx context.Context, network string, want netip.Addr, ipv6 bool) (p netip.Prefix, err error) {
	req := &agentv1.ReserveRequest{Network: network, Ipv6: ipv6}
	if want.IsValid() {
		req.Address = want.String()
	}
	err = c.call(ctx, "reserve an address of network "+network, c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		resp, err := h.Reserve(ctx, req)
		if err != nil {
			return err
		}
		if p, err = netip.ParsePrefix(resp.GetAddress()); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
		return nil
	})
	return p, err
}

// unreserveAtOnce is how many addresses the daemon takes in one request.
const unreserveAtOnce = 64

// Unreserve gives reserved addresses back. Those that are not reserved, or that an
// attachment has taken over, are left alone.
func (c *Client) Unreserve(ctx context.Context, network string, addrs []netip.Addr) error {
	for part := range slices.Chunk(addrs, unreserveAtOnce) {
		req := &agentv1.UnreserveRequest{Network: network}
		for _, a := range part {
			req.Addresses = append(req.Addresses, a.String())
		}
		err := c.call(ctx, "give back addresses of network "+network, c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
			_, err := h.Unreserve(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Reservations returns the addresses that are reserved for this guest. Their VM is
// empty.
func (c *Client) Reservations(ctx context.Context) (list []vnic.Reservation, err error) {
	err = c.call(ctx, "list reservations", c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		resp, err := h.Reservations(ctx, &agentv1.ReservationsRequest{})
		if err != nil {
			return err
		}
		list = make([]vnic.Reservation, 0, len(resp.GetReservations()))
		for _, r := range resp.GetReservations() {
			addr, err := netip.ParseAddr(r.GetAddress())
			if err != nil {
				return fmt.Errorf("%w: %w", errAnswer, err)
			}
			list = append(list, vnic.Reservation{Network: r.GetNetwork(), Address: addr, Since: time.Unix(r.GetSince(), 0)})
		}
		return nil
	})
	return list, err
}
