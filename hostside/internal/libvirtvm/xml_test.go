package libvirtvm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/digitalocean/go-libvirt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/slots"
	"github.com/brfuse/brfuse/vnic"
)

func readDomain(t *testing.T) *domain {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "domain.xml"))
	require.NoError(t, err)
	d, err := parseDomain(string(b))
	require.NoError(t, err)
	return d
}

func TestDomain(t *testing.T) {
	d := readDomain(t)
	assert.Equal(t, map[vnic.ID]nic{
		"0123456789": {mac: vnic.MAC{0x52, 0x54, 0, 1, 2, 3}, slot: "pci.2/01"},
	}, d.vnics(), "neither those without our alias nor those of another kind")
	buses, numbers := d.buses()
	assert.Equal(t, []slots.Bus{
		{Name: "pci.1", Class: slots.ACPIPort, NoZero: true, Taken: map[int]string{0: "pci.2"}, Wired: map[int]bool{0: true}},
		{
			Name: "pci.2", Class: slots.ACPIBridge, NoZero: true, Wired: map[int]bool{},
			Taken: map[int]string{1: "ua-brf0123456789", 2: "ua-mine", 3: "virtio-disk0"},
		},
		{Name: "pci.3", Class: slots.ACPIPort, NoZero: true, Taken: map[int]string{0: "virtio-serial0"}, Wired: map[int]bool{}},
	}, buses, "the port that is closed is none")
	assert.Equal(t, map[string]int{"pci.1": 1, "pci.2": 2, "pci.3": 3}, numbers)
	path, err := d.channel()
	require.NoError(t, err)
	assert.Equal(t, "/var/lib/libvirt/qemu/channel/target/domain-1-web/org.brfuse.agent.0", path)
}

func TestInterface(t *testing.T) {
	n := backend.NIC{ID: "0123456789", MAC: vnic.MAC{0x52, 0x54, 0, 1, 2, 3}, Queues: 1, Tap: "brf0123456789"}
	text, err := ifaceXML(n, 12, 31)
	require.NoError(t, err)
	assert.Equal(t, `<interface type="ethernet"><target dev="brf0123456789" managed="no"></target><mac address="52:54:00:01:02:03"></mac>`+
		`<model type="virtio-non-transitional"></model><rom enabled="no"></rom><alias name="ua-brf0123456789"></alias>`+
		`<address type="pci" domain="0x0000" bus="0x0c" slot="0x1f" function="0x0"></address></interface>`, text)
	n.Queues, n.MTU = 4, 9000
	text, err = ifaceXML(n, 2, 0)
	require.NoError(t, err)
	assert.Contains(t, text, `<driver queues="4"></driver><mtu size="9000"></mtu>`)
}

func TestWithLink(t *testing.T) {
	d := readDomain(t)
	text, ok := d.withLink("0123456789", false)
	require.True(t, ok)
	assert.Contains(t, text, `<link state='down'/>`)
	assert.NotContains(t, text, `up`)
	_, ok = d.withLink("0000000000", true)
	assert.False(t, ok)
}

func TestHotplug(t *testing.T) {
	for _, c := range []struct {
		name, machine, arg string
		acpi               bool
		want               hotplug
	}{
		{"q35", "pc-q35-7.2", "", true, hotplug{bridges: true}},
		{"first q35 with it", "pc-q35-6.1", "", true, hotplug{bridges: true}},
		{"last q35 without", "pc-q35-6.0", "", true, hotplug{}},
		{"q35 of another major version", "pc-q35-10.0", "", true, hotplug{bridges: true}},
		{"off", "pc-q35-7.2", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", true, hotplug{}},
		{"off in one argument", "pc-q35-7.2", "-global=ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", true, hotplug{}},
		{"no acpi", "pc-q35-7.2", "", false, hotplug{}},
		{"pc", "pc-i440fx-7.2", "", true, hotplug{root: true, bridges: true}},
		{"pc whose root is off", "pc-i440fx-7.2", "PIIX4_PM.acpi-root-pci-hotplug=off", true, hotplug{bridges: true}},
		{"another", "microvm", "", true, hotplug{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &domain{}
			d.Type.Machine = c.machine
			if c.acpi {
				d.Features.ACPI = &struct{}{}
			}
			d.Args = append(d.Args, struct {
				Value string `xml:"value,attr"`
			}{c.arg})
			assert.Equal(t, c.want, d.hotplug())
		})
	}
}

// FuzzDomain: no XML of a domain makes it stop, and what it says of slots can be used.
func FuzzDomain(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "domain.xml"))
	require.NoError(f, err)
	f.Add(string(b))
	f.Add(`<domain><devices><controller type='pci' index='-1' model='pci-root'><address type='pci' bus='0x00' slot='0x1f'/></controller></devices></domain>`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDomain(text)
		if err != nil {
			return
		}
		table := slots.New()
		buses, _ := d.buses()
		table.Merge(table.Mark(), buses)
		for id := range d.vnics() {
			_, ok := d.withLink(id, true)
			require.True(t, ok)
		}
		if path, err := d.channel(); err == nil {
			require.NotEmpty(t, path)
		}
	})
}

// TestRemovalFailed: a guest that says that it can't let go is told of at once.
func TestRemovalFailed(t *testing.T) {
	v := &VM{nics: newNICs(), run: libvirt.Domain{ID: 1}}
	result, cancel := v.nics.await("0123456789")
	defer cancel()
	v.handle(&libvirt.DomainEventCallbackDeviceRemovalFailedMsg{Dom: libvirt.Domain{ID: 2}, DevAlias: "ua-brf0123456789"})
	v.handle(&libvirt.DomainEventCallbackDeviceRemovalFailedMsg{Dom: libvirt.Domain{ID: 1}, DevAlias: "net0"})
	require.Empty(t, result, "events of others")
	v.handle(&libvirt.DomainEventCallbackDeviceRemovalFailedMsg{Dom: libvirt.Domain{ID: 1}, DevAlias: "ua-brf0123456789"})
	left, err := v.awaitLeft(t.Context(), "0123456789", result, nativeWait)
	require.ErrorIs(t, err, errGuestRefused)
	assert.False(t, left)
}

func TestLeaves(t *testing.T) {
	for _, c := range []struct {
		name, event, details string
		ok                   bool
		err                  error
	}{
		{"deleted", "DEVICE_DELETED", "\x00\x00\x00\x30{\"device\": \"ua-brf0123456789\", \"path\": \"/x\"}\x00\x00", true, nil},
		{"part of it", "DEVICE_DELETED", `{"path": "/machine/peripheral/ua-brf0123456789/virtio-backend"}`, false, nil},
		{"another", "DEVICE_DELETED", `{"device": "ua-brf0123456780"}`, false, nil},
		{"refused", "DEVICE_UNPLUG_GUEST_ERROR", `{"device": "ua-brf0123456789"}`, true, errGuestRefused},
		{"other event", "RESUME", `{"device": "ua-brf0123456789"}`, false, nil},
		{"empty", "DEVICE_DELETED", "", false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err, ok := leaves(libvirt.DomainEvent{Event: c.event, Details: []byte(c.details)}, "0123456789")
			assert.Equal(t, c.ok, ok)
			assert.Equal(t, c.err, err)
		})
	}
}
