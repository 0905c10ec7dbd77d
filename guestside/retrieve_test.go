package guestside

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// dirts are what a pod may do to its vNIC, as far as the kernel of any machine lets
// one do it to a stand-in. The whole list is in integration/dirts_test.go.
var dirts = []struct {
	name  string
	dirty func(eth0 netlink.Link) error
	// differs is by what it is told that the vNIC can't be made like new without its
	// driver. A stand-in has none that could be taken from it.
	differs string
}{
	{name: "nothing", dirty: func(netlink.Link) error { return nil }},
	{name: "address", dirty: func(l netlink.Link) error {
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet("10.9.9.9/24")})
	}},
	{name: "route", dirty: func(l netlink.Link) error {
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet("198.51.100.0/24"), Scope: netlink.SCOPE_LINK})
	}},
	{name: "permanent neighbour", dirty: func(l netlink.Link) error {
		return netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 1, 0, 77), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 7},
		})
	}},
	{name: "queueing discipline", dirty: func(l netlink.Link) error {
		return netlink.QdiscReplace(&netlink.GenericQdisc{QdiscType: "pfifo", QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(7, 0),
		}})
	}},
	{name: "ingress filters", dirty: func(l netlink.Link) error {
		return netlink.QdiscAdd(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0),
		}})
	}},
	{name: "alias", dirty: func(l netlink.Link) error { return netlink.LinkSetAlias(l, "mine") }},
	{name: "alternative name", dirty: func(l netlink.Link) error { return netlink.LinkAddAltName(l, "mine") }},
	{name: "promiscuous", dirty: netlink.SetPromiscOn},
	{name: "all multicast", dirty: netlink.LinkSetAllmulticastOn},
	{name: "no arp", dirty: netlink.LinkSetARPOff},
	{name: "no multicast", dirty: netlink.LinkSetMulticastOff},
	{name: "mtu", dirty: func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }},
	{name: "transmit queue", dirty: func(l netlink.Link) error { return netlink.LinkSetTxQLen(l, 77) }},
	{name: "another name", dirty: func(l netlink.Link) error {
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return netlink.LinkSetName(l, "mine")
	}},
	{name: "bridge port", dirty: func(l netlink.Link) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		br := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetMaster(l, br)
	}},
	{name: "sysctls", dirty: func(netlink.Link) error {
		for _, file := range []string{"ipv4/conf/eth0/proxy_arp", "ipv6/conf/eth0/forwarding", "ipv4/neigh/eth0/mcast_solicit"} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", file), []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "group", dirty: func(l netlink.Link) error { return netlink.LinkSetGroup(l, 7) }, differs: "group"},
	{name: "segmentation", dirty: func(l netlink.Link) error { return netlink.LinkSetGSOMaxSize(l, 1500) }, differs: "gso_max_size"},
}

func ipNet(s string) *net.IPNet {
	_, n, _ := net.ParseCIDR(s)
	n.IP = netip.MustParsePrefix(s).Addr().AsSlice()
	return n
}

// TestIntegrationScrub dirties a vNIC in one way after the other. What comes back is
// like new, or it is told what is not.
func TestIntegrationScrub(t *testing.T) {
	for _, tt := range dirts {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			pod := newNS(t)
			m := order(pod, "10.1.0.2/24", "fd00:1::2/64")
			l.park(m)
			fresh, err := l.examine(m, device{}, true)
			require.NoError(t, err)
			l.attach(m)
			in(t, pod, func() error {
				eth0, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return tt.dirty(eth0)
			})
			_, err = l.Retrieve(l.deadline(), m)
			require.NoError(t, err, "it is out of its pod")
			if tt.differs != "" {
				_, _, err := l.Attach(l.deadline(), m)
				require.ErrorIs(t, err, vnic.ErrDiffers, "the next tenant gets it")
			}
			_, err = l.Retrieve(l.deadline(), m) // waits for the rest of the first
			if tt.differs != "" {
				require.ErrorIs(t, err, vnic.ErrDiffers)
				require.ErrorContains(t, err, "it differs in "+tt.differs)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, m.ID.LinkName()+" down", show(t, l.home))
			now, err := l.examine(m, device{}, true)
			require.NoError(t, err)
			assert.Empty(t, fresh.facts.Differ(now.facts))
			assert.Empty(t, l.records.all())
		})
	}
}

// A vNIC that was given to somebody before it was looked at can't be proven to be
// like new.
func TestIntegrationRetrieveOfUnknown(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t), "10.1.0.2/24")
	l.plug(m, "ens5")
	l.attach(m)
	_, err := l.Retrieve(l.deadline(), m)
	require.ErrorIs(t, err, vnic.ErrDiffers)
	assert.ErrorContains(t, err, "it was not seen when it was new")
}

// A pool's vNIC is retrieved as soon as it is plugged, wherever it is by then.
func TestIntegrationRetrieveAwaits(t *testing.T) {
	l := newLab(t)
	m := vnic.Move{ID: vnic.NewID(), MAC: vnic.NewMAC(), MTU: 1400}
	done := make(chan error, 1)
	go func() {
		_, err := l.Retrieve(l.deadline(), m)
		done <- err
	}()
	l.awaitWaiter(m.MAC)
	l.plug(m, "ens5")
	require.NoError(t, <-done)
	assert.Equal(t, m.ID.LinkName()+" down mtu 1400", show(t, l.home))
	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	require.Len(t, nics, 1)
	assert.Equal(t, m.ID, nics[0].ID)
}

// A vNIC that dirties itself at home, because whoever administrates the VM takes it
// for his own, is cleaned there.
func TestIntegrationRetrieveAtHome(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t))
	l.plug(m, "ens5")
	in(t, l.home, func() error {
		ens5, err := netlink.LinkByName("ens5")
		if err != nil {
			return err
		}
		for _, do := range []func() error{
			func() error { return netlink.LinkSetUp(ens5) },
			func() error { return netlink.AddrAdd(ens5, &netlink.Addr{IPNet: ipNet("10.9.9.9/24")}) },
			func() error { return netlink.LinkSetAlias(ens5, "mine") },
			func() error { return netlink.LinkAddAltName(ens5, "also-mine") },
		} {
			if err := do(); err != nil {
				return err
			}
		}
		return nil
	})
	l.retrieve(m)
	assert.Equal(t, m.ID.LinkName()+" down", show(t, l.home))
	link := linksOf(t, l.home)[m.ID.LinkName()]
	assert.Empty(t, link.Alias)
	assert.Empty(t, link.AltNames)
}

// What is known of a vNIC ends with its link, but not with its move to a pod.
func TestDevicesAreForgottenWhenTheyAreGone(t *testing.T) {
	ds := newDevices()
	mac := vnic.NewMAC()
	link := rtnl.Link{Index: 7, Permanent: mac}
	for _, tt := range []struct {
		name   string
		change rtnl.LinkChange
		stays  bool
	}{
		{"moved", rtnl.LinkChange{Link: link, Gone: true, Moved: true}, true},
		{"its earlier link is gone", rtnl.LinkChange{Link: rtnl.Link{Index: 6, Permanent: mac}, Gone: true}, true},
		{"changed", rtnl.LinkChange{Link: link}, true},
		{"gone", rtnl.LinkChange{Link: link, Gone: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ds.put(mac, device{link: link})
			ds.gone(rtnl.Update{Changes: []rtnl.LinkChange{tt.change}})
			_, ok := ds.get(mac)
			assert.Equal(t, tt.stays, ok)
		})
	}
}

// Grace periods are expedited while anybody moves anything, and then as before.
func TestExpediter(t *testing.T) {
	for _, before := range []string{"0\n", "1\n"} {
		file := filepath.Join(t.TempDir(), "rcu_expedited")
		require.NoError(t, os.WriteFile(file, []byte(before), 0o600))
		e := newExpediter(nil, false)
		e.begin()()
		var err error
		e.file, err = os.OpenFile(file, os.O_RDWR, 0)
		require.NoError(t, err)
		is := func(want string) {
			t.Helper()
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, want, string(b[:1]))
		}
		one := e.begin()
		is("1")
		other := e.begin()
		one()
		is("1")
		other()
		is(before[:1])
		require.NoError(t, e.close())
	}
}

// tree makes a stand-in for /sys with a NIC behind a port.
func tree(t *testing.T, native bool) pciTree {
	t.Helper()
	root := t.TempDir()
	dev := "devices/pci0000:00/0000:00:05.0/0000:07:00.0"
	put := func(path, content string) {
		t.Helper()
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	put(dev+"/vendor", "0x1af4\n")
	put(dev+"/class", "0x020000\n")
	put("bus/pci/slots/3/address", "0000:06:00\n")
	put("bus/pci/slots/77/address", "0000:07:00\n")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "bus/pci/devices"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(root, dev), filepath.Join(root, "bus/pci/devices/0000:07:00.0")))
	if native {
		put("bus/pci_express/drivers/pciehp/0000:00:05.0:pcie004/uevent", "")
	}
	return pciTree{root}
}

func TestPowerOf(t *testing.T) {
	sys := tree(t, true)
	file, err := sys.powerOf("0000:07:00.0")
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(sys.root, "bus/pci/slots/77/power"), file)

	for _, pci := range []string{"", "0000:08:00.0"} {
		_, err = sys.powerOf(pci)
		require.ErrorIs(t, err, errNotNative, "%q", pci)
	}
	_, err = tree(t, false).powerOf("0000:07:00.0")
	require.ErrorIs(t, err, errNotNative, "its port is under ACPI")

	other := tree(t, true) // of the same slot, which would lose its power too
	require.NoError(t, os.Symlink("0000:07:00.0", filepath.Join(other.root, "bus/pci/devices/0000:07:00.1")))
	_, err = other.powerOf("0000:07:00.0")
	require.ErrorIs(t, err, vnic.ErrUnsupported)

	disk := tree(t, true)
	require.NoError(t, os.WriteFile(filepath.Join(disk.root, "bus/pci/devices/0000:07:00.0/class"), []byte("0x010000\n"), 0o600))
	_, err = disk.powerOf("0000:07:00.0")
	require.ErrorIs(t, err, errNotNative, "no network card")
}

func TestIntegrationReleasePowersOff(t *testing.T) {
	l := newLab(t)
	l.pci = tree(t, true)
	m := order(newNS(t))
	l.known.put(m.MAC, device{pci: "0000:07:00.0"})
	require.NoError(t, l.Release(l.deadline(), m))
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(filepath.Join(l.pci.root, "bus/pci/slots/77/power"))
		return err == nil && string(b) == "0"
	}, 5*time.Second, 5*time.Millisecond)
}
