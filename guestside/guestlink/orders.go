package guestlink

import (
	"context"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// Orders carries out what the guests' container engines ask for. The VM is the
// one whose channel the order came by: requests name no other. Its methods are
// safe for concurrent use, may be repeated, and return soon after ctx ends.
type Orders interface {
	// Networks returns the networks that the VM may ask for.
	Networks(ctx context.Context, vm string) ([]vnic.Network, error)
	// Attach gives a pod of the VM a vNIC. An empty network stands for the only
	// one that the VM may ask for.
	Attach(ctx context.Context, vm string, req vnic.Request) (vnic.Attachment, error)
	// Detach takes a vNIC away that a manager in the guest asked for. That there is
	// none is no error; one of the daemon's API is a [vnic.ErrForbidden].
	Detach(ctx context.Context, vm, pod, iface string) error
	// Attachments returns those of the VM that managers in the guest asked for, of one
	// manager or of all.
	Attachments(ctx context.Context, vm, manager string) ([]vnic.Attachment, error)
	// Check returns [vnic.ErrNotFound], or [vnic.ErrDiffers] when an attachment is
	// not ready or its port on the host is not whole.
	Check(ctx context.Context, vm, pod, iface string) (vnic.Attachment, error)
	// Ready returns why an attachment to a network can't be made now.
	Ready(ctx context.Context, vm, network string) error
	// Publish sets the published ports of an attachment.
	Publish(ctx context.Context, vm, pod, iface string, ports []vnic.PortMapping) error
	// Reserve keeps an address for a later attachment of the VM: the wanted one, or
	// when that is not valid any of its family.
	Reserve(ctx context.Context, vm, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error)
	// Unreserve gives reserved addresses back.
	Unreserve(ctx context.Context, vm, network string, addrs []netip.Addr) error
	// Reservations returns the addresses that are reserved for the VM.
	Reservations(ctx context.Context, vm string) ([]vnic.Reservation, error)
}

// unsupported is the answer while the daemon has no Orders.
func unsupported() error { return rpcerr.Encode(vnic.ErrUnsupported) }

// Networks implements the call of that name.
func (h *host) Networks(context.Context, *agentv1.NetworksRequest) (*agentv1.NetworksResponse, error) {
	return nil, unsupported()
}

// Attach implements the call of that name.
func (h *host) Attach(context.Context, *agentv1.AttachRequest) (*agentv1.Attachment, error) {
	return nil, unsupported()
}

// Detach implements the call of that name.
func (h *host) Detach(context.Context, *agentv1.DetachRequest) (*agentv1.DetachResponse, error) {
	return nil, unsupported()
}

// Attachments implements the call of that name.
func (h *host) Attachments(context.Context, *agentv1.AttachmentsRequest) (*agentv1.AttachmentsResponse, error) {
	return nil, unsupported()
}

// Check implements the call of that name.
func (h *host) Check(context.Context, *agentv1.HostCheckRequest) (*agentv1.HostCheckResponse, error) {
	return nil, unsupported()
}

// Ready implements the call of that name.
func (h *host) Ready(context.Context, *agentv1.ReadyRequest) (*agentv1.ReadyResponse, error) {
	return nil, unsupported()
}

// Publish implements the call of that name.
func (h *host) Publish(context.Context, *agentv1.PublishRequest) (*agentv1.PublishResponse, error) {
	return nil, unsupported()
}

// Reserve implements the call of that name.
func (h *host) Reserve(context.Context, *agentv1.ReserveRequest) (*agentv1.ReserveResponse, error) {
	return nil, unsupported()
}

// Unreserve implements the call of that name.
func (h *host) Unreserve(context.Context, *agentv1.UnreserveRequest) (*agentv1.UnreserveResponse, error) {
	return nil, unsupported()
}

// Reservations implements the call of that name.
func (h *host) Reservations(context.Context, *agentv1.ReservationsRequest) (*agentv1.ReservationsResponse, error) {
	return nil, unsupported()
}
