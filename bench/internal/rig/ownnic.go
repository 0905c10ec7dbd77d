package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Names of a guest's own NIC and what is on its way. None is like one of
// brfuse's, which would take them for its own.
const (
	ownBridge = "own0"
	ownTap    = "owntap"
	ownNetdev = "ownnet"
	ownDevice = "ownnic"
	// ownBus and ownSlot are the last slot of the bridge that brfuse fills from the
	// other end.
	ownBus  = "brf-br1"
	ownSlot = "1f"
)

// ownNet is the network of the guests' own NICs: the hypervisors have .1 and .101,
// the guests .2 and .102.
var ownNet = netip.MustParsePrefix("10.240.0.0/24")

func (n *node) hostAddr() netip.Addr  { return n.addr(ownNet, 1) }
func (n *node) guestAddr() netip.Addr { return n.addr(ownNet, 2) }

// args are the arguments of a QMP command.
type args map[string]any

// addBridge makes the bridge that the guest's own NIC is on.
func (n *node) addBridge() error {
	b, err := n.bridge(ownBridge, vnic.DefaultMTU)
	if err != nil {
		return err
	}
	return n.nl.SetHostAddrs(b, []netip.Prefix{netip.PrefixFrom(n.hostAddr(), ownNet.Bits())})
}

// bridge makes a bridge that is up.
func (n *node) bridge(name string, mtu int) (b rtnl.HostLink, err error) {
	if err := n.nl.AddBridge(rtnl.Bridge{Name: name, MAC: vnic.NewMAC(), MTU: mtu}); err != nil {
		return b, err
	}
	if err := n.quiet(name); err != nil {
		return b, err
	}
	if b, err = n.nl.HostLink(name); err != nil {
		return b, err
	}
	return b, n.nl.SetLinkUp(b)
}

// quiet keeps the hypervisor's IPv6 off a link, as brfuse does: what it sends by
// itself would make work in the guest.
func (n *node) quiet(link string) error {
	return n.site.Net.NS().Do(func() error {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) { // the kernel has no IPv6
			return nil
		}
		return err
	})
}

// plugOwn plugs the guest's own NIC and gives it its address.
func (n *node) plugOwn(ctx context.Context) error {
	n.ownMAC = vnic.NewMAC()
	if err := n.plugTap(ctx, n.ownMAC); err != nil {
		return fmt.Errorf("plug the guest's own NIC: %w", err)
	}
	return n.plugDevice(ctx)
}

// renewOwn unplugs the guest's own NIC and plugs it again: brfuse's is plugged for each
// pod. Where its rings come to lie in memory is worth some hundredths of a figure, and
// is to be drawn as often for the one as for the other.
func (n *node) renewOwn(ctx context.Context) error {
	mon := n.vm.Monitor()
	mark := mon.Mark()
	_, err := mon.Do(ctx, "device_del", args{"id": ownDevice})
	if err == nil {
		err = mon.AwaitDeleted(ctx, mark, ownDevice)
	}
	if err != nil {
		return fmt.Errorf("unplug the guest's own NIC: %w", err)
	}
	return n.plugDevice(ctx)
}

// plugDevice plugs what the guest sees of its own NIC.
func (n *node) plugDevice(ctx context.Context) error {
	_, err := n.vm.Monitor().Do(ctx, "device_add", args{
		"driver": "virtio-net-pci", "id": ownDevice, "netdev": ownNetdev, "mac": n.ownMAC.String(), "bus": ownBus, "addr": ownSlot,
	})
	if err != nil {
		return fmt.Errorf("plug the guest's own NIC: %w", err)
	}
	addr := netip.PrefixFrom(n.guestAddr(), ownNet.Bits())
	out, err := n.place("").RunTool(ctx, "nic", "--mac", n.ownMAC.String(), "--address", addr.String())
	if err != nil {
		return err
	}
	var nic struct{ Name string }
	if err := json.Unmarshal([]byte(out), &nic); err != nil {
		return fmt.Errorf("read the name of the guest's own NIC: %w", err)
	}
	n.uplink = nic.Name
	return nil
}

// plugTap makes the tap a port of the bridge, and QEMU's network backend of it.
func (n *node) plugTap(ctx context.Context, mac vnic.MAC) (err error) {
	var tap, vhost []*os.File
	defer func() { err = errors.Join(err, rtnl.CloseFiles(tap), rtnl.CloseFiles(vhost)) }() // QEMU has its own
	err = n.site.Net.NS().Do(func() (err error) { tap, err = rtnl.OpenTap(ownTap, 1); return err })
	if err != nil {
		return err
	}
	if err := n.quiet(ownTap); err != nil {
		return err
	}
	if err := n.portOf(ownBridge, ownTap, mac); err != nil {
		return err
	}
	if vhost, err = rtnl.OpenVhost(1); err != nil {
		return err
	}
	mon := n.vm.Monitor()
	netdev := args{"type": "tap", "id": ownNetdev, "fd": ownTap}
	if _, err := mon.Do(ctx, "getfd", args{"fdname": ownTap}, tap...); err != nil {
		return err
	}
	n.vhost = len(vhost) > 0
	if n.vhost {
		netdev["vhost"], netdev["vhostfd"] = true, "ownvhost"
		if _, err := mon.Do(ctx, "getfd", args{"fdname": "ownvhost"}, vhost...); err != nil {
			return err
		}
	}
	_, err = mon.Do(ctx, "netdev_add", netdev)
	return err
}

// portOf makes a link a port of a bridge for the station with that MAC.
func (n *node) portOf(bridge, link string, mac vnic.MAC) error {
	b, err := n.nl.HostLink(bridge)
	if err != nil {
		return err
	}
	l, err := n.nl.HostLink(link)
	if err != nil {
		return err
	}
	if err := n.nl.JoinBridge(l, b, mac); err != nil {
		return err
	}
	return n.nl.SetLinkUp(l)
}
