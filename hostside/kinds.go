package hostside

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/hostside/internal/port"
	"github.com/brfuse/brfuse/vnic"
)

// openTap makes what a vNIC of that network has on the host: a tap, or a macvtap.
func (h *Host) openTap(ctx context.Context, n vnic.Network, p vnic.Plug) (port.Tap, error) {
	if n.Kind == vnic.KindMacvtap {
		return h.links.OpenMacvtap(ctx, p, n)
	}
	return h.links.OpenTap(ctx, p)
}

// checkKind returns what a network of that kind can't do for a vNIC as a
// [vnic.ErrUnsupported].
func checkKind(p vnic.Plug, n vnic.Network, v vnic.VM) error {
	if n.Kind != vnic.KindMacvtap {
		return nil
	}
	var what string
	switch {
	case len(p.Ports) > 0:
		what = "ports can't be published"
	case p.Bandwidth != vnic.Bandwidth{}:
		what = "bandwidths can't be limited"
	case v.Libvirt != "":
		what = "a vm of libvirt can't have a vnic"
	default:
		return nil
	}
	return fmt.Errorf("network %s is of kind macvtap, where %s: %w: use a network of kind vlan or an existing bridge", n.Name, what, vnic.ErrUnsupported)
}

// checkMovable returns a [vnic.ErrUnsupported] when one of the vNICs is a macvtap. Two of
// one MAC can't be on an uplink, not even while a guest moves from one to the other.
func (h *Host) checkMovable(plugs []vnic.Plug) error {
	for _, p := range plugs {
		if n, err := h.network(p.Network); err == nil && n.Kind == vnic.KindMacvtap {
			return fmt.Errorf("vnic %s is a macvtap of network %s, which can't be moved: %w: detach its pod first", p.ID, n.Name, vnic.ErrUnsupported)
		}
	}
	return nil
}
