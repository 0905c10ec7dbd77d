package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// GuestPath implements [Walker].
func (p *parts) GuestPath(ctx context.Context, q PathQuery) (*netpath.Path, error) {
	w := guestlink.Walk{Netns: q.Netns, Interface: q.Interface, To: q.To}
	if q.Netns == "" { // an engine moved it: the agent knows where it is
		nic, err := p.nic(ctx, q.VM, q.MAC)
		if err != nil {
			return nil, err
		}
		w.Netns, w.Interface = nic.Netns, nic.Interface
	}
	return p.links.Path(ctx, q.VM, w)
}

// nic asks the agent of a VM where the vNIC with a MAC is.
func (p *parts) nic(ctx context.Context, vm string, mac vnic.MAC) (vnic.NIC, error) {
	nics, err := p.links.NICs(ctx, vm)
	if err != nil {
		return vnic.NIC{}, err
	}
	for _, n := range nics {
		if n.MAC == mac {
			return n, nil
		}
	}
	return vnic.NIC{}, fmt.Errorf("vm %s: vnic %s: %w", vm, mac, vnic.ErrNICMissing)
}

// HostPath implements [Walker].
func (p *parts) HostPath(ctx context.Context, q PathQuery, a vnic.Attachment, guest *netpath.Path) (*netpath.Path, error) {
	var err error
	to, gateway := guest.Next()
	if a.ID == "" {
		if a, err = p.attached(ctx, q.VM, guest); err != nil {
			return nil, err
		}
	}
	o := netpath.Options{Arriving: true, To: to, Gateway: gateway}
	vhost, guessed := "", false
	if a.ID != "" {
		o.Interface, vhost = a.VNIC().TapName(), vhostHere()
		if guest == nil {
			o.To, o.Gateway = q.To, firstOf(a.Gateways)
		}
	} else {
		if o.Interface, guessed, err = p.ownTap(ctx, q.VM, guest); err != nil {
			return nil, err
		}
	}
	if o.Port, err = p.portOf(ctx, a, o.To); err != nil {
		return nil, err
	}
	path, err := netpath.Local(ctx, o)
	if errors.Is(err, netpath.ErrNoInterface) {
		return nil, fmt.Errorf("tap %s is not in the network namespace of brfused", o.Interface)
	}
	if err != nil {
		return nil, err
	}
	if d := path.Hops[0].Device; d != nil && d.Tap != nil {
		d.Tap.Vhost = vhost
	}
	if guessed {
		path.Notes = append(path.Notes, "the tap was found by the MAC of the vm's NIC, which the guest can choose")
	}
	return &path, nil
}

// portOf returns the tap of the attachment that has an address on an attachment's
// network. It is empty when there is none.
func (p *parts) portOf(ctx context.Context, a vnic.Attachment, to netip.Addr) (string, error) {
	if a.ID == "" || !to.IsValid() {
		return "", nil
	}
	list, err := p.orch.List(ctx, orchestrator.Filter{Network: a.Request.Network})
	if err != nil {
		return "", err
	}
	for _, other := range list {
		if slices.ContainsFunc(other.Leases, func(l netip.Prefix) bool { return l.Addr() == to }) {
			return other.VNIC().TapName(), nil
		}
	}
	return "", nil
}

// attached finds the attachment whose vNIC a guest's path ends by: traffic of a
// nested pod may leave the VM by one. It is the zero value when there is none.
func (p *parts) attached(ctx context.Context, vm string, guest *netpath.Path) (vnic.Attachment, error) {
	list, err := p.orch.List(ctx, orchestrator.Filter{VM: vm})
	if err != nil {
		return vnic.Attachment{}, err
	}
	for _, a := range list {
		if d := guest.Last(); d != nil && a.MAC.String() == d.MAC {
			return a, nil
		}
	}
	return vnic.Attachment{}, nil
}

// ownTap returns the tap of the VM's own NIC by which a guest's path ends. It is guessed
// when the hypervisor doesn't tell its name.
func (p *parts) ownTap(ctx context.Context, vm string, guest *netpath.Path) (tap string, guessed bool, err error) {
	last := guest.Last()
	if last == nil || last.Kind != "nic" {
		return "", false, errors.New("the path in the guest doesn't come to a NIC of the vm")
	}
	mac, err := vnic.ParseMAC(last.MAC)
	if err != nil {
		return "", false, err
	}
	behind, err := p.host.NICBackend(ctx, vm, mac)
	switch {
	case errors.Is(err, vnic.ErrUnsupported):
		behind.Kind = "tap" // libvirt's are, mostly
	case err != nil:
		return "", false, err
	}
	if behind.Kind != "tap" {
		return "", false, fmt.Errorf("behind NIC %s (%s) of the vm is no tap, but QEMU's %q", last.Name, mac, behind.Kind)
	}
	if behind.Tap != "" {
		return behind.Tap, false, nil
	}
	tap, err = netpath.FindTap(mac)
	if err == nil && tap == "" {
		err = fmt.Errorf("which tap is behind NIC %s (%s) of the vm: QEMU was given it as a descriptor, no tap here has its MAC, and no bridge has learned it", last.Name, mac)
	}
	return tap, true, err
}

// vhostHere says who copies the packets of brfuse's taps: see rtnl.OpenVhost.
func vhostHere() string {
	f, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		return "qemu"
	}
	_ = f.Close() // nothing was done with it
	return "kernel"
}

func firstOf(list []netip.Addr) netip.Addr {
	if len(list) == 0 {
		return netip.Addr{}
	}
	return list[0]
}
