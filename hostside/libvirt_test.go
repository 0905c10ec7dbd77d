package hostside

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/libvirttest"
	"github.com/brfuse/brfuse/vnic"
)

// domains is a libvirtd for vmlab.
type domains struct{ *libvirttest.Daemon }

func (d domains) Start(ctx context.Context, name, xml string) error {
	if err := d.Define(ctx, xml); err != nil {
		return err
	}
	return d.StartDomain(ctx, name)
}

func (d domains) Domain(name string) string { return d.Address(name) }

// bootDomain returns a Host that has a real guest, without an agent, under libvirt.
func bootDomain(t *testing.T) (*Host, *vmlab.VM, domains, *netnstest.NS) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	ns := netnstest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	lv, err := libvirttest.Start(ctx, libvirttest.Options{NS: ns.NS})
	if errors.Is(err, libvirttest.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, lv.Close()) })
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	initrd, err := lab.Build(ctx, filepath.Join(dir, "initrd"), vmlab.Image{})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm", Dir: dir, Initrd: initrd, VNICs: guestSlots, Libvirt: domains{lv}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	var h *Host
	ns.In(func() (err error) {
		h, err = New(Config{Log: slog.New(slog.DiscardHandler)})
		return err
	})
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	require.NoError(t, h.SetNetwork(ctx, testNet))
	require.NoError(t, h.AddVM(ctx, vm.Ref()))
	return h, vm, domains{lv}, ns
}

// TestIntegrationLibvirt: a Host whose VM libvirt runs.
func TestIntegrationLibvirt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h, vm, lv, ns := bootDomain(t)
	require.Empty(t, vm.Ref().QMP)
	requireEvent(t, h, vnic.EventVMUp)
	before := ns.State()
	path, err := LibvirtChannel(ctx, vm.Ref().Libvirt)
	require.NoError(t, err)
	assert.Equal(t, vm.Ref().Channel, path)

	for _, queues := range []int{1, 2} {
		p := testPlug()
		p.Queues = queues
		got, err := h.Plug(ctx, p)
		require.NoError(t, err)
		ports, err := h.Ports(ctx, "vm")
		require.NoError(t, err)
		assert.Equal(t, []vnic.Port{{VM: "vm", ID: p.ID, MAC: p.MAC, Slot: got.Slot, Tap: true, Plug: true, Bridged: true}}, ports)
		link := ns.Run("ip", "-d", "link", "show", p.ID.TapName())
		assert.Contains(t, link, "persist on")
		assert.Contains(t, link, "user root", "anybody may open it")
		again, err := h.Plug(ctx, p)
		require.NoError(t, err)
		assert.Equal(t, got, again)
		require.NoError(t, h.Unplug(ctx, "vm", p.ID))
		assert.Equal(t, before, ns.State())
	}

	t.Run("parked", func(t *testing.T) {
		p := testPlug()
		p.Parked = true
		_, err := h.Plug(ctx, p)
		require.NoError(t, err)
		assert.Contains(t, ns.Run("ip", "link", "show", p.ID.TapName()), "state DOWN")
		p.Parked = false
		require.NoError(t, h.Unpark(ctx, p))
		ports, err := h.Ports(ctx, "vm")
		require.NoError(t, err)
		require.Len(t, ports, 1)
		assert.True(t, ports[0].Bridged)
		require.NoError(t, h.Unplug(ctx, "vm", p.ID))
	})
	t.Run("a daemon died before the device was there", func(t *testing.T) {
		p := testPlug()
		p.Queues, p.MTU = 1, 1500
		tap, err := h.links.OpenTap(ctx, p)
		require.NoError(t, err)
		require.NoError(t, tap.Persist(0))
		_, err = h.Plug(ctx, p)
		require.NoError(t, err)
		require.NoError(t, h.Unplug(ctx, "vm", p.ID))

		tap, err = h.links.OpenTap(ctx, p)
		require.NoError(t, err)
		require.NoError(t, tap.Persist(0))
		ports, err := h.Ports(ctx, "")
		require.NoError(t, err)
		assert.Equal(t, []vnic.Port{{ID: p.ID, Tap: true}}, ports)
		require.NoError(t, h.Unplug(ctx, "", p.ID))
	})
	t.Run("libvirtd dies during a plug and an unplug", func(t *testing.T) {
		p := testPlug()
		for _, f := range []func() error{
			func() error {
				_, err := h.Plug(ctx, p)
				return err
			},
			func() error { return h.Unplug(ctx, "vm", p.ID) },
		} {
			result := make(chan error, 1)
			go func() { result <- f() }()
			require.NoError(t, lv.Kill(ctx))
			require.NoError(t, lv.Restart(ctx))
			require.NoError(t, <-result)
			requireEvent(t, h, vnic.EventVMUp)
		}
	})
	assert.Equal(t, before, ns.State())

	t.Run("the domain dies", func(t *testing.T) {
		p := testPlug()
		_, err := h.Plug(ctx, p)
		require.NoError(t, err)
		vm.Kill()
		requireEvent(t, h, vnic.EventVMGone)
		_, err = h.Plug(ctx, testPlug())
		require.ErrorIs(t, err, vnic.ErrVMGone)
		began := time.Now()
		require.NoError(t, h.Unplug(ctx, "vm", p.ID))
		assert.Less(t, time.Since(began), 2*time.Second, "its tap does not go by itself")
		assert.Equal(t, before, ns.State())
		require.NoError(t, vm.Restart(ctx))
		requireEvent(t, h, vnic.EventVMUp)
		_, err = h.Plug(ctx, p)
		require.NoError(t, err)
		require.NoError(t, h.Unplug(ctx, "vm", p.ID))
	})
	assert.Equal(t, before, ns.State())
}
