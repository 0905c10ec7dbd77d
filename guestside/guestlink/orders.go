package guestlink

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/internal/wire"
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

const (
	// orderLimit bounds an order, whatever the agent's deadline.
	orderLimit = 2 * time.Minute
	// An answer has as many attachments as fit into partSize bytes, at most
	// partCount and at least one.
	partSize  = 128 << 10
	partCount = 256
)

// order carries out an order. When the session ends, the answer is given up; the
// order then ends by itself, as its context does, and undoes what it has to.
func (h *host) order(ctx context.Context, what string, fn func(context.Context) error) error {
	if h.orders == nil {
		return rpcerr.Encode(fmt.Errorf("%s: the daemon takes no orders of guests: %w", what, vnic.ErrUnsupported))
	}
	if err := h.turns.take(ctx); err != nil {
		return rpcerr.Encode(fmt.Errorf("%s: %w", what, err))
	}
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	done := make(chan error, 1)
	go func() {
		defer h.turns.end()
		defer cancel()
		done <- fn(ctx)
	}()
	select {
	case err := <-done:
		return rpcerr.Encode(err)
	case <-h.ended:
		// Should it still arrive, then not as the daemon's answer to the order: without a
		// code of package vnic it has the agent ask again in the next session.
		return status.Errorf(codes.Unavailable, "%s: %s", what, wire.ErrClosed)
	}
}

// Networks implements the call of that name.
func (h *host) Networks(ctx context.Context, _ *agentv1.NetworksRequest) (*agentv1.NetworksResponse, error) {
	resp := &agentv1.NetworksResponse{}
	err := h.order(ctx, "list networks", func(ctx context.Context) error {
		list, err := h.orders.Networks(ctx, h.vm)
		for _, n := range list {
			resp.Networks = append(resp.Networks, fromNetwork(n))
		}
		return err
	})
	return resp, err
}

// Attach implements the call of that name.
func (h *host) Attach(ctx context.Context, req *agentv1.AttachRequest) (*agentv1.Attachment, error) {
	r, err := toRequest(req, h.vm)
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	var resp *agentv1.Attachment
	err = h.order(ctx, "attach", func(ctx context.Context) error {
		a, err := h.orders.Attach(ctx, h.vm, r)
		resp = fromAttachment(a)
		return err
	})
	if err != nil {
		return nil, err // the order may still be under way
	}
	return resp, nil
}

// Detach implements the call of that name.
func (h *host) Detach(ctx context.Context, req *agentv1.DetachRequest) (*agentv1.DetachResponse, error) {
	if err := h.checkKey(req); err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.DetachResponse{}, h.order(ctx, "detach", func(ctx context.Context) error {
		return h.orders.Detach(ctx, h.vm, req.GetPod(), req.GetInterface())
	})
}

// Attachments implements the call of that name.
func (h *host) Attachments(ctx context.Context, req *agentv1.AttachmentsRequest) (*agentv1.AttachmentsResponse, error) {
	if m := req.GetManager(); m != "" && vnic.CheckNetworkName(m) != nil || len(req.GetAfter()) > maxText {
		return nil, rpcerr.Encode(fmt.Errorf("list attachments of manager %.64q: no manager: %w", m, vnic.ErrInvalid))
	}
	resp := &agentv1.AttachmentsResponse{}
	err := h.order(ctx, "list attachments", func(ctx context.Context) error {
		list, err := h.orders.Attachments(ctx, h.vm, req.GetManager())
		if err != nil {
			return err
		}
		fillPart(resp, list, req.GetAfter())
		return nil
	})
	return resp, err
}

// fillPart puts those of a list into an answer that come after an ID.
func fillPart(resp *agentv1.AttachmentsResponse, list []vnic.Attachment, after string) {
	slices.SortFunc(list, func(a, b vnic.Attachment) int { return cmp.Compare(a.ID, b.ID) })
	size := 0
	for _, a := range list {
		if string(a.ID) <= after {
			continue
		}
		m := fromAttachment(a)
		size += proto.Size(m)
		if n := len(resp.GetAttachments()); n == partCount || n > 0 && size > partSize {
			resp.More = true
			return
		}
		resp.Attachments = append(resp.Attachments, m)
	}
}

// Check implements the call of that name.
func (h *host) Check(ctx context.Context, req *agentv1.HostCheckRequest) (*agentv1.HostCheckResponse, error) {
	if err := h.checkKey(req); err != nil {
		return nil, rpcerr.Encode(err)
	}
	resp := &agentv1.HostCheckResponse{}
	err := h.order(ctx, "check", func(ctx context.Context) error {
		a, err := h.orders.Check(ctx, h.vm, req.GetPod(), req.GetInterface())
		resp.Attachment = fromAttachment(a)
		return err
	})
	return resp, err
}

// Ready implements the call of that name.
func (h *host) Ready(ctx context.Context, req *agentv1.ReadyRequest) (*agentv1.ReadyResponse, error) {
	if err := checkNetwork(req.GetNetwork(), true); err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.ReadyResponse{}, h.order(ctx, "ask if ready", func(ctx context.Context) error {
		return h.orders.Ready(ctx, h.vm, req.GetNetwork())
	})
}

// Publish implements the call of that name.
func (h *host) Publish(ctx context.Context, req *agentv1.PublishRequest) (*agentv1.PublishResponse, error) {
	if err := h.checkKey(req); err != nil {
		return nil, rpcerr.Encode(err)
	}
	ports, err := toPorts(req.GetPorts())
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.PublishResponse{}, h.order(ctx, "publish ports", func(ctx context.Context) error {
		return h.orders.Publish(ctx, h.vm, req.GetPod(), req.GetInterface(), ports)
	})
}

// Reserve implements the call of that name.
func (h *host) Reserve(ctx context.Context, req *agentv1.ReserveRequest) (*agentv1.ReserveResponse, error) {
	if err := checkNetwork(req.GetNetwork(), true); err != nil {
		return nil, rpcerr.Encode(err)
	}
	var want netip.Addr
	if req.GetAddress() != "" {
		var err error
		if want, err = agentconv.ToAddr(req.GetAddress()); err != nil {
			return nil, rpcerr.Encode(err)
		}
	}
	resp := &agentv1.ReserveResponse{}
	err := h.order(ctx, "reserve address", func(ctx context.Context) error {
		p, err := h.orders.Reserve(ctx, h.vm, req.GetNetwork(), want, req.GetIpv6())
		if err == nil {
			resp.Address = p.String()
		}
		return err
	})
	return resp, err
}

// Unreserve implements the call of that name.
func (h *host) Unreserve(ctx context.Context, req *agentv1.UnreserveRequest) (*agentv1.UnreserveResponse, error) {
	if err := checkNetwork(req.GetNetwork(), false); err != nil {
		return nil, rpcerr.Encode(err)
	}
	addrs, err := toAddrs(req.GetAddresses())
	if err != nil {
		return nil, rpcerr.Encode(err)
	}
	return &agentv1.UnreserveResponse{}, h.order(ctx, "give back addresses", func(ctx context.Context) error {
		return h.orders.Unreserve(ctx, h.vm, req.GetNetwork(), addrs)
	})
}

// Reservations implements the call of that name.
func (h *host) Reservations(ctx context.Context, _ *agentv1.ReservationsRequest) (*agentv1.ReservationsResponse, error) {
	resp := &agentv1.ReservationsResponse{}
	err := h.order(ctx, "list reservations", func(ctx context.Context) error {
		list, err := h.orders.Reservations(ctx, h.vm)
		for _, r := range list {
			resp.Reservations = append(resp.Reservations, &agentv1.Reservation{
				Network: r.Network, Address: r.Address.String(), Since: r.Since.Unix(),
			})
		}
		return err
	})
	return resp, err
}
