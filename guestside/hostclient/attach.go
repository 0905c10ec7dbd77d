package hostclient

import (
	"context"
	"fmt"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/vnic"
)

// Attach gives a pod of this guest a vNIC, and returns when the pod has it. An
// empty network stands for the only one that the guest may ask for. A request like
// that of an attachment that is there returns it; one that differs is a
// [vnic.ErrConflict]. Request.VM stays empty.
//
// When ctx ends first, the attach goes on at the daemon: call [Client.Detach].
func (c *Client) Attach(ctx context.Context, req vnic.Request) (a vnic.Attachment, err error) {
	m, err := fromRequest(req)
	if err != nil {
		return a, err
	}
	err = c.call(ctx, "attach "+req.Pod+"/"+req.Interface, c.cfg.Order, func(ctx context.Context, h agentv1.HostService) error {
		resp, err := h.Attach(ctx, m)
		if err == nil {
			a, err = toAttachment(resp)
		}
		return err
	})
	return a, err
}

// Detach takes a vNIC away, and waits for an attach of the same pod and interface
// that is under way. That there is none is no error; one that was not made for a
// manager of this guest is a [vnic.ErrForbidden].
func (c *Client) Detach(ctx context.Context, pod, iface string) error {
	return c.call(ctx, "detach "+pod+"/"+iface, c.cfg.Order, func(ctx context.Context, h agentv1.HostService) error {
		_, err := h.Detach(ctx, &agentv1.DetachRequest{Pod: pod, Interface: iface})
		return err
	})
}

// Attachments returns those that managers of this guest asked for, of one manager
// or, when it is empty, of all, in the order of their IDs.
func (c *Client) Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error) {
	var list []vnic.Attachment
	err := c.call(ctx, "list attachments", c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		list = nil
		for more, after := true, ""; more; {
			resp, err := h.Attachments(ctx, &agentv1.AttachmentsRequest{Manager: manager, After: after})
			if err != nil {
				return err
			}
			if list, err = appendPart(list, resp); err != nil {
				return err
			}
			if more = resp.GetMore(); more {
				after = string(list[len(list)-1].ID)
			}
		}
		return nil
	})
	return list, err
}

// Check returns an attachment of this guest that is whole as seen from the
// hypervisor: [vnic.ErrNotFound] when there is none, [vnic.ErrDiffers] when it is
// not ready or its port is not as it was made.
func (c *Client) Check(ctx context.Context, pod, iface string) (a vnic.Attachment, err error) {
	err = c.call(ctx, "check "+pod+"/"+iface, c.cfg.Ask, func(ctx context.Context, h agentv1.HostService) error {
		resp, err := h.Check(ctx, &agentv1.HostCheckRequest{Pod: pod, Interface: iface})
		if err == nil {
			a, err = toAttachment(resp.GetAttachment())
		}
		return err
	})
	return a, err
}

// Publish sets the published ports of an attachment to these: [vnic.ErrPortTaken],
// [vnic.ErrForbidden] for a port that guests can't have, [vnic.ErrNotFound].
func (c *Client) Publish(ctx context.Context, pod, iface string, ports []vnic.PortMapping) error {
	if len(ports) > vnic.MaxPorts {
		return fmt.Errorf("publish ports of %s/%s: %d are more than %d: %w", pod, iface, len(ports), vnic.MaxPorts, vnic.ErrInvalid)
	}
	req := &agentv1.PublishRequest{Pod: pod, Interface: iface, Ports: agentconv.FromPorts(ports)}
	return c.call(ctx, "publish ports of "+pod+"/"+iface, c.cfg.Order, func(ctx context.Context, h agentv1.HostService) error {
		_, err := h.Publish(ctx, req)
		return err
	})
}
