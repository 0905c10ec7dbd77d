package daemon

import (
	"context"
	"net/netip"
	"testing"

	"github.com/brfuse/brfuse/guestside/hostclient/hosttest"
	"github.com/brfuse/brfuse/vnic"
)

// ofGuest is the orders as the guest of VM vm1 sees them.
type ofGuest struct{ *orders }

func (o ofGuest) Networks(ctx context.Context) ([]vnic.Network, error) {
	return o.orders.Networks(ctx, "vm1")
}

func (o ofGuest) Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error) {
	return o.orders.Attach(ctx, "vm1", req)
}

func (o ofGuest) Detach(ctx context.Context, pod, iface string) error {
	return o.orders.Detach(ctx, "vm1", pod, iface)
}

func (o ofGuest) Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error) {
	return o.orders.Attachments(ctx, "vm1", manager)
}

func (o ofGuest) Check(ctx context.Context, pod, iface string) (vnic.Attachment, error) {
	return o.orders.Check(ctx, "vm1", pod, iface)
}

func (o ofGuest) Ready(ctx context.Context, network string) error {
	return o.orders.Ready(ctx, "vm1", network)
}

func (o ofGuest) Publish(ctx context.Context, pod, iface string, ports []vnic.PortMapping) error {
	return o.orders.Publish(ctx, "vm1", pod, iface, ports)
}

func (o ofGuest) Reserve(ctx context.Context, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error) {
	return o.orders.Reserve(ctx, "vm1", network, want, ipv6)
}

func (o ofGuest) Unreserve(ctx context.Context, network string, addrs []netip.Addr) error {
	return o.orders.Unreserve(ctx, "vm1", network, addrs)
}

func (o ofGuest) Reservations(ctx context.Context) ([]vnic.Reservation, error) {
	return o.orders.Reservations(ctx, "vm1")
}

// The daemon does what the front doors' tests expect of a fake one.
func TestOrdersConform(t *testing.T) {
	inGuest(t, func(g *guest) {
		hosttest.Conform(g.t, ofGuest{g.orders}, hosttest.Site{Network: "blue", Forbidden: "green", Pods: [2]string{"web", "db"}})
	})
}
