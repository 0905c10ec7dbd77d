package floor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Names of what is there once at a time. None is like one of brfuse's, which
// would take them for its own.
const (
	bridgeName = "floor"
	plugged    = "floor"
	waiting    = "spare"
)

func tapName(nic string) string  { return nic + "tap" }
func netdevID(nic string) string { return nic + "net" }
func deviceID(nic string) string { return nic + "nic" }

// slot is a place for a device.
type slot struct{ bus, device string }

func parseSlot(s string) (slot, error) {
	bus, device, ok := strings.Cut(s, "/")
	if !ok {
		return slot{}, fmt.Errorf("slot %q is not BUS/DEVICE", s)
	}
	return slot{bus, device}, nil
}

// args are the arguments of a QMP command.
type args map[string]any

// openBridge makes the bridge, in the calling thread's namespace.
func (f *Floor) openBridge() (err error) {
	if f.nl, err = rtnl.New(); err != nil {
		return err
	}
	if f.conn, err = rtnl.Dial(); err != nil {
		return err
	}
	if err := f.nl.AddBridge(rtnl.Bridge{Name: bridgeName, MAC: vnic.NewMAC(), MTU: vnic.DefaultMTU}); err != nil {
		return err
	}
	if f.bridge, err = f.nl.HostLink(bridgeName); err != nil {
		return err
	}
	addrs := []netip.Prefix{
		netip.PrefixFrom(f.gw4, f.cfg.Subnet.Bits()), netip.PrefixFrom(f.gw6, f.cfg.Prefix.Bits()),
	}
	if err := f.nl.SetHostAddrs(f.bridge, addrs); err != nil {
		return err
	}
	return f.nl.SetLinkUp(f.bridge)
}

// prepareHost makes a NIC's tap a port of the bridge and the network backend of it.
func (f *Floor) prepareHost(ctx context.Context, nic string, mac vnic.MAC) (err error) {
	name := tapName(nic)
	var files []*os.File
	err = f.cfg.Net.Do(func() (err error) {
		if files, err = rtnl.OpenTap(name, 1); err != nil {
			return err
		}
		return quiet(name)
	})
	defer func() { err = errors.Join(err, rtnl.CloseFiles(files)) }() // QEMU has its own
	if err != nil {
		return err
	}
	tap, err := f.nl.HostLink(name)
	if err != nil {
		return err
	}
	if err := f.nl.JoinBridge(tap, f.bridge, mac); err != nil {
		return err
	}
	if err := f.nl.SetLinkUp(tap); err != nil {
		return err
	}
	mon := f.cfg.VM.Monitor()
	if _, err := mon.Do(ctx, "getfd", args{"fdname": name}, files[0]); err != nil {
		return err
	}
	_, err = mon.Do(ctx, "netdev_add", args{"type": "tap", "id": netdevID(nic), "fd": name})
	return err
}

// quiet keeps the host's own IPv6 off a tap, as brfuse does: what it sends
// would make work in the guest.
func quiet(tap string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+tap+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// plug plugs a NIC such as brfuse plugs. The guest has yet to see it when plug
// returns.
func (f *Floor) plug(ctx context.Context, nic string, mac vnic.MAC, at slot) error {
	_, err := f.cfg.VM.Monitor().Do(ctx, "device_add", args{
		"driver": "virtio-net-pci", "id": deviceID(nic), "netdev": netdevID(nic), "mac": mac.String(),
		"bus": at.bus, "addr": at.device, "vectors": 4, "host_mtu": vnic.DefaultMTU,
		"disable-legacy": "on", "romfile": "",
	})
	return err
}

// unplugged tells whether an event is the first of the two by which QEMU tells
// that the NIC is gone. The second comes some 50 ms later, when its memory is free.
func unplugged(ev vmlab.Event) bool {
	var data struct{ Path string }
	return ev.Name == "DEVICE_DELETED" && json.Unmarshal(ev.Data, &data) == nil &&
		strings.HasPrefix(data.Path, "/machine/peripheral/"+deviceID(plugged))
}

// Detach unplugs the NIC. It returns the time from device_del until QEMU's word
// that the device is gone, and until the network backend was gone too: QEMU then
// closes the tap, which the host's kernel takes apart meanwhile.
func (f *Floor) Detach(ctx context.Context) (device, all time.Duration, err error) {
	mon := f.cfg.VM.Monitor()
	mark := mon.Mark()
	start := time.Now()
	if _, err := mon.Do(ctx, "device_del", args{"id": deviceID(plugged)}); err != nil {
		return 0, 0, err
	}
	if _, err := mon.Await(ctx, mark, unplugged); err != nil {
		return 0, 0, err
	}
	device = time.Since(start)
	if _, err := mon.Do(ctx, "netdev_del", args{"id": netdevID(plugged)}); err != nil {
		return 0, 0, err
	}
	all = time.Since(start)
	return device, all, f.forget()
}

// forget has the host's neighbour table forget the pod, so that the next ping
// begins with ARP as that to any new pod does.
func (f *Floor) forget() error {
	if err := f.conn.Do(rtnl.DelNeighbour(f.bridge.Index, f.addr4).Tolerate(unix.ENOENT)); err != nil {
		return fmt.Errorf("forget %s: %w", f.addr4, err)
	}
	return nil
}
