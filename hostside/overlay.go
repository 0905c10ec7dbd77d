package hostside

import (
	"context"
	"fmt"
	"slices"

	"github.com/brfuse/brfuse/hostside/internal/overlay"
	"github.com/brfuse/brfuse/vnic"
)

// OverlayMTU returns the largest MTU in bytes that overlays have here: what the
// underlay leaves.
func (h *Host) OverlayMTU() (int, error) {
	o, err := h.tunnels()
	if err != nil {
		return 0, err
	}
	return o.MTU()
}

// tunnels returns the overlays' part, or an [vnic.ErrUnsupported] without an underlay.
func (h *Host) tunnels() (*overlay.Overlay, error) {
	if h.overlay == nil {
		return nil, fmt.Errorf("this hypervisor has no underlay for overlays: %w: start brfused with --underlay ADDRESS", vnic.ErrUnsupported)
	}
	return h.overlay, nil
}

// setOverlay joins an overlay's bridge, which is there, to those of the others.
func (h *Host) setOverlay(ctx context.Context, n vnic.Network) error {
	if n.Kind != vnic.KindOverlay {
		return nil
	}
	o, err := h.tunnels()
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	// One of that name may have been removed and made anew while nothing ran here.
	found, err := h.overlaysOf(ctx, n)
	if err != nil {
		return fmt.Errorf("set network %s: %w", n.Name, err)
	}
	for _, f := range found {
		if f.VNI == n.VNI {
			continue
		}
		if err := o.RemoveNetwork(ctx, f.VNI); err != nil {
			return err
		}
	}
	return o.SetNetwork(ctx, overlay.Network{Name: n.Name, Bridge: n.Bridge, VNI: n.VNI, MTU: n.MTU})
}

// removeOverlay takes a network's bridge from those of the others, unless it has ports of
// vNICs.
func (h *Host) removeOverlay(ctx context.Context, n vnic.Network) error {
	if h.overlay == nil {
		return nil
	}
	found, err := h.overlaysOf(ctx, n)
	if err != nil {
		return err
	}
	for _, f := range found {
		if err := h.links.Unused(n, f.Link()); err != nil {
			return err
		}
		if err := h.overlay.RemoveNetwork(ctx, f.VNI); err != nil {
			return err
		}
	}
	return nil
}

// overlaysOf returns the VXLAN networks that are here in a network's name.
func (h *Host) overlaysOf(ctx context.Context, n vnic.Network) ([]overlay.Network, error) {
	found, err := h.overlay.Networks(ctx)
	return slices.DeleteFunc(found, func(f overlay.Network) bool { return f.Name != n.Name }), err
}

// vni returns the identifier of a network that is an overlay.
func (h *Host) vni(name string) (uint32, *overlay.Overlay, error) {
	n, err := h.network(name)
	if err != nil {
		return 0, nil, err
	}
	o, err := h.tunnels()
	return n.VNI, o, err
}

// ReplaceStations declares all stations of an overlay that are behind other hypervisors,
// in place of those before. The network was set by [Host.SetNetwork]. A station that
// another pod of this hypervisor has the MAC of is an [vnic.ErrAddressTaken], and is
// declared once that one is gone.
func (h *Host) ReplaceStations(ctx context.Context, network string, all []vnic.Station) error {
	vni, o, err := h.vni(network)
	if err != nil {
		return err
	}
	_, err = o.Replace(ctx, vni, remotes(all))
	return err
}

// SetStations declares some stations, in place of what was declared for their MACs. Its
// cost does not grow with the number of others.
func (h *Host) SetStations(ctx context.Context, network string, some []vnic.Station) error {
	vni, o, err := h.vni(network)
	if err != nil {
		return err
	}
	return o.Set(ctx, vni, remotes(some)...)
}

// RemoveStations takes back what was declared for MACs; that it was not is no error.
func (h *Host) RemoveStations(ctx context.Context, network string, macs []vnic.MAC) error {
	vni, o, err := h.vni(network)
	if err != nil {
		return err
	}
	return o.Remove(ctx, vni, macs...)
}

// OverlayDrift counts what others changed in the kernel's tables of overlays and was
// put right again, since [New].
func (h *Host) OverlayDrift() vnic.Drift {
	if h.overlay == nil {
		return vnic.Drift{}
	}
	return vnic.Drift(h.overlay.Stats().Drift)
}

func remotes(stations []vnic.Station) []overlay.Remote {
	list := make([]overlay.Remote, len(stations))
	for i, s := range stations {
		list[i] = overlay.Remote{MAC: s.MAC, Addresses: s.Addresses, Host: s.Via}
	}
	return list
}
