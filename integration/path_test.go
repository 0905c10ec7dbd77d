package integration

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// ownMAC is that of the VM's own NIC in the test of paths.
const ownMAC = "02:00:5e:00:53:11"

// TestIntegrationPath shows what packets of a fused pod and of a nested one cross, in
// the same guest.
func TestIntegrationPath(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true, Image: vmlab.Image{
		Modules:  []string{"nf_tables", "nft_chain_nat", "nft_masq", "nft_ct", "nft_nat", "veth", "bridge"},
		Programs: []string{"/usr/sbin/nft"},
	}}, "web", "nested")
	web := attach(ctx, t, s, "--pod", "web")
	tap := "brf" + web.ID

	t.Run("fused", func(t *testing.T) {
		inGuest(ctx, t, vm, "web", "ping", "-c", "1", "-W", "5", bluePrefix4+"1")
		var r netpath.Report
		require.NoError(t, s.BrfuseJSON(ctx, &r, "doctor", "--path", "web", "--watch", "100ms"))
		assert.True(t, r.Fused)
		assert.Equal(t, web.ID, r.Attachment)
		assert.Positive(t, r.Seconds)
		require.NotNil(t, r.Guest)
		assert.Equal(t, []string{"route default", "nic eth0"}, hops(r.Guest))
		eth0 := r.Guest.Last()
		assert.Equal(t, "virtio_net", eth0.Driver)
		assert.Equal(t, web.MAC, eth0.MAC)
		assert.Equal(t, web.GuestPCI, eth0.Bus)
		assert.Positive(t, eth0.Vectors)
		assert.Positive(t, eth0.RX.Packets)
		assert.NotNil(t, eth0.RX.Since)
		require.NotNil(t, r.Host, "%v", r.Notes)
		want := []string{"tun " + tap, "hook bridge prerouting", "hook bridge postrouting", "bridge bf-blue"}
		assert.Equal(t, want, hops(r.Host)[:4], "%v", hops(r.Host))
		if d := r.Host.Hops[0].Device; assert.NotNil(t, d.Tap) {
			assert.True(t, d.Tap.VnetHdr)
			assert.NotEmpty(t, d.Tap.Vhost)
			assert.Positive(t, d.RX.Packets)
		}
	})
	t.Run("text", func(t *testing.T) {
		out := run(ctx, t, s, "doctor", "--path", "web", "--watch", "0")
		t.Log(out)
		for _, want := range []string{"pod web in vm1, interface eth0: fused", "guest vm1", "device eth0: nic, virtio_net", "tap: 1 queue open", "device " + tap + ": tun", "device bf-blue: bridge"} {
			assert.Contains(t, out, want)
		}
	})
	t.Run("errors", func(t *testing.T) {
		fails(ctx, t, s, "not_found", "nope has no attachment.*--vm", "doctor", "--path", "nope")
		fails(ctx, t, s, "unknown_pod", "nope.*ip netns list", "doctor", "--path", "nope", "--vm", "vm1")
		fails(ctx, t, s, "unknown_vm", "vm9", "doctor", "--path", "nope", "--vm", "vm9")
		fails(ctx, t, s, "invalid", "no interface eth7.*--ifname", "doctor", "--path", "web", "--ifname", "eth7")
		fails(ctx, t, s, "usage", "--path only", "doctor", "--vm", "vm1")
	})
	if vm.Ref().Libvirt != "" {
		return // its NICs are libvirt's to make
	}
	t.Run("nested", func(t *testing.T) {
		uplink := ownNIC(ctx, t, s, vm)
		nest(ctx, t, vm, uplink)
		inGuest(ctx, t, vm, "nested", "ping", "-c", "2", "-W", "5", "10.240.0.1")
		var r netpath.Report
		require.NoError(t, s.BrfuseJSON(ctx, &r, "doctor", "--path", "nested", "--vm", "vm1", "--watch", "100ms", "--to", "10.240.0.1"))
		assert.False(t, r.Fused)
		require.NotNil(t, r.Guest)
		assert.Equal(t, []string{
			"route 10.240.0.1", "veth eth0", "veth vnest", "bridge nest0", "hook prerouting", "route 10.240.0.1", "hook forward",
			"hook postrouting", "nic " + uplink,
		}, hops(r.Guest))
		post := r.Guest.Hops[7].Hook.Chains[0]
		assert.True(t, post.NAT)
		require.NotEmpty(t, post.Counters)
		assert.Equal(t, uint64(1), post.Counters[0].Count.Packets, "the first packet of the ping")
		require.NotNil(t, r.Host, "%v", r.Notes)
		assert.Equal(t, []string{"tun owntap", "hook bridge prerouting", "hook bridge postrouting", "bridge own0", "hook prerouting"}, hops(r.Host),
			"the host's rules see it, and let it pass")
		assert.Equal(t, "10.240.0.1 is an address of this namespace", r.Host.End)
		out := run(ctx, t, s, "doctor", "--path", "nested", "--vm", "vm1", "--watch", "0", "--to", "10.240.0.1")
		t.Log(out)
		assert.Contains(t, out, "masquerade: 1 packet")
	})
}

// hops names the hops of a path, without hooks that have rules of the kernel's only.
func hops(p *netpath.Path) []string {
	var list []string
	for _, h := range p.Hops {
		switch {
		case h.Device != nil:
			list = append(list, h.Device.Kind+" "+h.Device.Name)
		case h.Route != nil:
			list = append(list, "route "+h.Route.To)
		case h.Hook.Bridge:
			list = append(list, "hook bridge "+h.Hook.Name)
		default:
			list = append(list, "hook "+h.Hook.Name)
		}
	}
	return list
}

// ownNIC plugs a NIC that is the VM's own, on a tap and a bridge of the host, and
// returns its name.
func ownNIC(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM) string {
	t.Helper()
	for _, line := range []string{"link add own0 type bridge", "addr add 10.240.0.1/24 dev own0", "link set own0 up"} {
		onHost(ctx, t, s, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	var files []*os.File
	require.NoError(t, s.Net.NS().Do(func() (err error) {
		files, err = rtnl.OpenTap("owntap", 1)
		return err
	}))
	defer func() { assert.NoError(t, rtnl.CloseFiles(files)) }()
	onHost(ctx, t, s, "ip", "link", "set", "owntap", "master", "own0", "up")
	type args map[string]any
	mon := vm.Monitor()
	_, err := mon.Do(ctx, "getfd", args{"fdname": "owntap"}, files...)
	require.NoError(t, err)
	_, err = mon.Do(ctx, "netdev_add", args{"type": "tap", "id": "ownnet", "fd": "owntap"})
	require.NoError(t, err)
	_, err = mon.Do(ctx, "device_add", args{
		"driver": "virtio-net-pci", "id": "ownnic", "netdev": "ownnet", "mac": ownMAC, "bus": "brf-br1", "addr": "1f",
	})
	require.NoError(t, err)
	var name string
	require.NoError(t, site.Until(ctx, "the guest's own NIC", func(ctx context.Context) (bool, error) {
		res, err := vm.RunIn(ctx, "", "sh", "-c", "grep -l "+ownMAC+" /sys/class/net/*/address")
		f := strings.Split(strings.TrimSpace(res.Stdout), "/")
		if err != nil || len(f) < 5 {
			return false, err
		}
		name = f[4]
		return true, nil
	}))
	return name
}

// nest puts the pod nested behind a veth, a bridge and NAT, as Docker does.
func nest(ctx context.Context, t *testing.T, vm *vmlab.VM, uplink string) {
	t.Helper()
	for line := range strings.Lines(`
		ip addr add 10.240.0.2/24 dev UPLINK
		ip link set UPLINK up
		ip link add nest0 type bridge
		ip addr add 10.55.0.1/24 dev nest0
		ip link set nest0 up
		ip link add vnest type veth peer name eth0 netns nested
		ip link set vnest master nest0 up
		ip netns exec nested ip addr add 10.55.0.2/24 dev eth0
		ip netns exec nested ip link set eth0 up
		ip netns exec nested ip route add default via 10.55.0.1
		sysctl -w net.ipv4.ip_forward=1
		nft add table ip nat
		nft add chain ip nat pre {type nat hook prerouting priority -100;}
		nft add chain ip nat post {type nat hook postrouting priority 100;}
		nft add rule ip nat post oifname UPLINK counter masquerade
		nft add table ip filter
		nft add chain ip filter forward {type filter hook forward priority 0;}
		nft add rule ip filter forward ct state established counter accept
	`) {
		argv := strings.Fields(strings.ReplaceAll(line, "UPLINK", uplink))
		if i := slices.IndexFunc(argv, func(s string) bool { return strings.HasPrefix(s, "{") }); i > 0 {
			argv = append(argv[:i], strings.Join(argv[i:], " "))
		}
		if len(argv) > 0 {
			inGuest(ctx, t, vm, "", argv...)
		}
	}
}
