package libvirtvm

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationMachineTypes(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		name, machine, devices string
		used, total            int
		hotplug, first         string
	}{
		{"bridge", "q35", oneBridge, 0, 31, "acpi", "pci.2/01"},
		{"i440fx", "pc", "", 1, 31, "acpi", "pci.0/02"},
		{"i440fx with a bridge", "pc", "<controller type='pci' index='1' model='pci-bridge'/>", 1, 61, "acpi", "pci.0/03"},
		{
			"root ports", "q35",
			"<controller type='pci' index='1' model='pcie-root-port'/><controller type='pci' index='2' model='pcie-root-port'/>", 0, 2, "acpi", "pci.1/00",
		},
		{
			"port that is closed", "q35",
			"<controller type='pci' index='1' model='pcie-root-port'><target hotplug='off'/></controller>" +
				"<controller type='pci' index='2' model='pcie-root-port'/>", 0, 1, "acpi", "pci.2/00",
		},
		{
			"native", "q35", oneBridge + `<controller type='pci' index='3' model='pcie-root-port'/>` + commandline +
				`<qemu:arg value='-global'/><qemu:arg value='ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'/></qemu:commandline>`, 0, 32, "native", "pci.3/00",
		},
		{"bridge that has a name", "q35", strings.Replace(oneBridge, "<address", "<alias name='ua-br1'/><address", 1), 0, 31, "acpi", "ua-br1/01"},
		{"machine without bridge support of ACPI", "pc-q35-6.0", "<controller type='pci' index='1' model='pcie-root-port'/>", 0, 1, "native", "pci.1/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s.startPaused(t, c.machine, c.devices)
			v := s.dial(t)
			st, err := v.Status(ctx)
			require.NoError(t, err)
			assert.Regexp(t, `^\d+\.\d+\.\d+$`, st.Version)
			st.Version = ""
			assert.Equal(t, backend.Status{Hotplug: c.hotplug, SlotsUsed: c.used, SlotsTotal: c.total}, st)
			slot, err := v.Plug(ctx, s.nic(t, 2))
			require.NoError(t, err)
			assert.Equal(t, c.first, slot)
		})
	}
}

// TestIntegrationFirmware: nobody lets go of a device in a machine that hasn't begun
// to run, whatever libvirt answers.
func TestIntegrationFirmware(t *testing.T) {
	s := withoutGuest(t, oneBridge)
	v := s.dial(t)
	n := s.nic(t, 1)
	_, err := v.Plug(t.Context(), n)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	err = v.Unplug(ctx, n.ID)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "await the guest's release of the device")
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 1)

	result := make(chan error, 1)
	ctx, cancel = context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	go func() { result <- v.Unplug(ctx, n.ID) }()
	_, err = s.lv.Virsh(ctx, "reset", "vm1") // does the guest's part
	require.NoError(t, err)
	require.NoError(t, <-result)
	s.nothingInQEMU(t)
}

// TestIntegrationTakenSlot: others use slots, and give them back.
func TestIntegrationTakenSlot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := withoutGuest(t, oneBridge)
	v := s.dial(t)
	other := s.nic(t, 1)
	text, err := ifaceXML(other, 2, 1)
	require.NoError(t, err)
	require.NoError(t, s.attach(ctx, strings.ReplaceAll(text, alias(other.ID), "ua-others")))
	slot, err := v.Plug(ctx, s.nic(t, 1))
	require.NoError(t, err)
	assert.Equal(t, "pci.2/02", slot)
	st, err := v.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, st.SlotsUsed)
	list, err := v.List(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1, "another's is not ours")
}

// TestIntegrationStrangers: devices that libvirt doesn't know have slots too.
func TestIntegrationStrangers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := withoutGuest(t, oneBridge)
	v := s.dial(t)
	for i := 1; i <= 31; i++ {
		if i != 20 {
			s.qmp(t, "device_add", map[string]any{"driver": "pci-testdev", "id": fmt.Sprint("s", i), "bus": "pci.2", "addr": fmt.Sprintf("%x", i)})
		}
	}
	slot, err := v.Plug(ctx, s.nic(t, 1))
	require.NoError(t, err)
	assert.Equal(t, "pci.2/14", slot)
	_, err = v.Plug(ctx, s.nic(t, 1))
	var full *vnic.NoSlotError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, vnic.NoSlotError{VM: "vm1", Used: 31, Total: 31}, *full)
}

// attach plugs a device behind the VM's back.
func (s *site) attach(ctx context.Context, xml string) error {
	return s.lv.AttachDevice(ctx, "vm1", xml)
}

// TestIntegrationSameAlias: a vNIC that another daemon has just plugged is found.
func TestIntegrationSameAlias(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := withGuest(t)
	v := s.dial(t)
	s.awaitDriver(ctx, t, v)
	n := s.nic(t, 1)
	text, err := ifaceXML(n, 2, 7)
	require.NoError(t, err)
	require.NoError(t, s.attach(ctx, text))
	slot, err := v.Plug(ctx, n)
	require.NoError(t, err)
	assert.Equal(t, "pci.2/07", slot)
	assert.Equal(t, 1, used(t, v))

	n = s.nic(t, 1)
	stranger := n
	stranger.MAC = vnic.NewMAC()
	text, err = ifaceXML(stranger, 2, 8)
	require.NoError(t, err)
	require.NoError(t, s.attach(ctx, text))
	_, err = v.Plug(ctx, n)
	require.NoError(t, err)
	list, err := v.List(ctx)
	require.NoError(t, err)
	for _, d := range list {
		if d.ID == n.ID {
			assert.Equal(t, n.MAC, d.MAC)
		}
	}
	assert.Len(t, list, 2)
	assert.Equal(t, 2, used(t, v))
}

func used(t *testing.T, v *VM) int {
	t.Helper()
	st, err := v.Status(t.Context())
	require.NoError(t, err)
	return st.SlotsUsed - 1 // the channel's controller
}

// TestIntegrationOrphans: what a libvirtd left in QEMU when it died in the middle of
// a plug is found, and removed.
func TestIntegrationOrphans(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := withGuest(t)
	v := s.dial(t)
	s.awaitDriver(ctx, t, v)
	half, whole := s.nic(t, 1), s.nic(t, 1)
	for _, n := range []backend.NIC{half, whole} {
		s.qmp(t, "netdev_add", map[string]any{"type": "user", "id": backendID(n.ID)})
	}
	s.qmp(t, "device_add", map[string]any{
		"driver": "virtio-net-pci", "id": alias(whole.ID), "netdev": backendID(whole.ID), "bus": "pci.2", "addr": "9",
	})
	require.NoError(t, v.Close())

	v = s.dial(t)
	list, err := v.List(ctx)
	require.NoError(t, err)
	assert.ElementsMatch(t, []backend.Device{{ID: half.ID, Backend: true}, {ID: whole.ID, Backend: true, Frontend: true}}, list)
	_, err = v.Plug(ctx, half)
	require.NoError(t, err)
	require.NoError(t, v.Unplug(ctx, whole.ID))
	list, err = v.List(ctx)
	require.NoError(t, err)
	assert.Len(t, list, 1)
	require.NoError(t, v.Unplug(ctx, half.ID))
	s.nothingInQEMU(t)
}

// TestIntegrationDial: what libvirt says of a domain, and what it doesn't.
func TestIntegrationDial(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := withoutGuest(t, oneBridge)
	dial := func(domain string) error {
		_, err := Dial(ctx, vnic.VM{Name: "vm1", Libvirt: domain}, slog.New(slog.DiscardHandler))
		return err
	}
	err := dial(s.lv.Address("other"))
	require.ErrorIs(t, err, backend.ErrNotRunning)
	require.ErrorContains(t, err, "vm vm1: libvirt has no domain other, see `virsh list --all`")
	require.NoError(t, s.lv.DestroyDomain(ctx, "vm1"))
	err = dial(s.lv.Address("vm1"))
	require.ErrorIs(t, err, backend.ErrNotRunning)
	require.ErrorContains(t, err, "domain vm1 is shut off, start it by `virsh start vm1`")
	missing := filepath.Join(s.dir, "none")
	err = dial("qemu+unix:///system/vm1?socket=" + missing)
	require.NotErrorIs(t, err, backend.ErrNotRunning)
	require.ErrorContains(t, err, "libvirtd does not answer at "+missing)
	require.ErrorIs(t, dial("qemu+ssh://h/system/vm1"), vnic.ErrInvalid)
}

func TestIntegrationChannel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	given := `<channel type='unix'><source mode='bind' path='/tmp/brf-agent'/><target type='virtio' name='org.brfuse.agent.0'/></channel>`
	s := withoutGuest(t, given)
	path, err := Channel(ctx, s.lv.Address("vm1"))
	require.NoError(t, err)
	assert.Equal(t, "/tmp/brf-agent", path)
	_, err = Channel(ctx, s.lv.Address("other"))
	require.ErrorIs(t, err, vnic.ErrUnknownVM)

	for _, c := range []struct {
		name, channel, path, says string
		is                        error
	}{
		{"libvirt chooses the path", channelXML, "/var/lib/libvirt/qemu/channel/target/domain-2-vm1/org.brfuse.agent.0", "", nil},
		{"none", "", "", "add " + channelXML + " to its devices", vnic.ErrNotFound},
		{"pty", `<channel type='pty'><target type='virtio' name='org.brfuse.agent.0'/></channel>`, "", "it is of type pty", vnic.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, s.lv.DestroyDomain(ctx, "vm1"))
			require.NoError(t, s.lv.Define(ctx, domainXML("q35", "", c.channel)))
			if c.is == nil {
				_, err := Channel(ctx, s.lv.Address("vm1"))
				require.ErrorContains(t, err, "start it first")
			}
			_, err := s.lv.Virsh(ctx, "start", "--paused", "vm1")
			require.NoError(t, err)
			path, err := Channel(ctx, s.lv.Address("vm1"))
			if c.is == nil {
				require.NoError(t, err)
				assert.Equal(t, c.path, path)
				return
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
		})
	}
}
