package qmpvm

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	require.Empty(t, os.Getenv("CI"), "CI must run as root")
	t.Skip("needs root")
}

var oneBridge = []string{
	"-M", "q35", "-device", "pcie-root-port,id=rp1,chassis=1", "-device", "pcie-pci-bridge,id=br1,bus=rp1",
}

func dialQEMU(t *testing.T, q *qmptest.QEMU) *VM {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// QEMU may take longer than a greeting's usual time to start on a busy machine.
	for {
		v, err := Dial(ctx, vnic.VM{Name: "vm1", QMP: q.Path}, slog.New(slog.DiscardHandler))
		if err != nil && ctx.Err() == nil {
			continue
		}
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, v.Close()) })
		return v
	}
}

// taps makes taps in a namespace of their own, which ends with the test.
type taps struct{ ns *netnsx.NS }

func newTaps(t *testing.T) taps {
	t.Helper()
	needRoot(t)
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return taps{ns}
}

func (n taps) nic(t *testing.T, queues int) backend.NIC {
	t.Helper()
	id := vnic.NewID()
	nic := backend.NIC{ID: id, MAC: vnic.NewMAC(), MTU: 1400, Queues: queues, Tap: id.TapName()}
	require.NoError(t, n.ns.Do(func() error {
		for range queues {
			f, err := openTap(id.TapName(), queues)
			if err != nil {
				return err
			}
			nic.Files = append(nic.Files, f)
		}
		return nil
	}))
	t.Cleanup(func() {
		for _, f := range nic.Files {
			_ = f.Close()
		}
	})
	return nic
}

func openTap(name string, queues int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	flags := unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	ifr.SetUint16(uint16(flags))
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, fmt.Errorf("TUNSETIFF: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func TestIntegrationPlug(t *testing.T) {
	n := newTaps(t)
	v := dialQEMU(t, qmptest.StartQEMU(t, append(oneBridge, "-device", "pcie-root-port,id=rp2,chassis=2")...))
	s, err := v.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 32, s.SlotsTotal)
	assert.Zero(t, s.SlotsUsed)
	assert.Equal(t, backend.HotplugACPI, s.Hotplug)
	assert.Regexp(t, `^\d+\.\d+\.\d+$`, s.Version)

	one, two := n.nic(t, 1), n.nic(t, 2)
	slot, err := v.Plug(t.Context(), one)
	require.NoError(t, err)
	assert.Equal(t, "br1/01", slot)
	_, err = v.Plug(t.Context(), two)
	require.NoError(t, err)
	want := []backend.Device{
		{ID: one.ID, MAC: one.MAC, Slot: "br1/01", Backend: true, Frontend: true},
		{ID: two.ID, MAC: two.MAC, Slot: "br1/02", Backend: true, Frontend: true},
	}
	slices.SortFunc(want, func(a, b backend.Device) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, list)
	require.NoError(t, v.SetLink(t.Context(), one.ID, false))
	for property, is := range map[string]string{"vectors": "5", "ioeventfd": "true", "mq": "true", "host_mtu": "1400", "romfile": `""`, "disable-legacy": `"on"`} {
		out, err := v.conn.Do(t.Context(), qmp.Command{Execute: "qom-get", Args: args{"path": devicePath(two.ID), "property": property}})
		require.NoError(t, err)
		assert.Equal(t, is, string(out), property)
	}
}

// TestIntegrationRedial is a daemon that crashed at each step of a plug.
func TestIntegrationRedial(t *testing.T) {
	n := newTaps(t)
	q := qmptest.StartQEMU(t, oneBridge...)
	v := dialQEMU(t, q)
	whole, half := n.nic(t, 1), n.nic(t, 1)
	slot, err := v.Plug(t.Context(), whole)
	require.NoError(t, err)
	require.NoError(t, v.tryNetdev(t.Context(), half))
	require.NoError(t, v.Close())

	v = dialQEMU(t, q)
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, []backend.Device{
		{ID: whole.ID, MAC: whole.MAC, Slot: slot, Backend: true, Frontend: true},
		{ID: half.ID, Backend: true},
	}, list)
	s, err := v.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, s.SlotsUsed)
	again, err := v.Plug(t.Context(), whole)
	require.NoError(t, err)
	assert.Equal(t, slot, again)
	_, err = v.Plug(t.Context(), half)
	require.NoError(t, err)
}

func TestIntegrationTwentyAtOnceAndFull(t *testing.T) {
	n := newTaps(t)
	v := dialQEMU(t, qmptest.StartQEMU(t, oneBridge...))
	slots := make([]string, 20)
	nics := make([]backend.NIC, len(slots))
	for i := range nics {
		nics[i] = n.nic(t, 1)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range slots {
		wg.Go(func() {
			var err error
			slots[i], err = v.Plug(t.Context(), nics[i])
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	t.Logf("20 plugs took %s", time.Since(start))
	slices.Sort(slots)
	assert.Len(t, slices.Compact(slots), 20)

	start = time.Now()
	for range 11 {
		_, err := v.Plug(t.Context(), n.nic(t, 1))
		require.NoError(t, err)
	}
	t.Logf("one plug and its tap took %s", time.Since(start)/11)
	_, err := v.Plug(t.Context(), n.nic(t, 1))
	var full *vnic.NoSlotError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, vnic.NoSlotError{VM: "vm1", Used: 31, Total: 31}, *full)
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, list, 31, "the backend of the one too many is gone")
}

// TestIntegrationUnplugWithoutGuest: nobody answers the request of a machine that
// hasn't begun to run, so it waits. A reset does the guest's part.
func TestIntegrationUnplugWithoutGuest(t *testing.T) {
	n := newTaps(t)
	v := dialQEMU(t, qmptest.StartQEMU(t, oneBridge...))
	nic := n.nic(t, 1)
	_, err := v.Plug(t.Context(), nic)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = v.Unplug(ctx, nic.ID)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "await the guest's release of the device")

	result := make(chan error, 1)
	go func() { result <- v.Unplug(context.WithoutCancel(t.Context()), nic.ID) }()
	require.NoError(t, v.run(t.Context(), "system_reset", nil))
	select {
	case err := <-result:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the device is still there after a reset")
	}
	list, err := v.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)
}

var (
	nativeHotplug = []string{"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"}
	pcBridges     = []string{"-device", "pci-bridge,id=b1,chassis_nr=1,shpc=off", "-device", "pci-bridge,id=b2,chassis_nr=2"}
)

// TestIntegrationMachineTypes fills every kind of bus that the table knows: each
// slot that it promises takes a vNIC, and there is none that it overlooks.
func TestIntegrationMachineTypes(t *testing.T) {
	for _, c := range []struct {
		name    string
		args    []string
		total   int
		hotplug string
		first   string
	}{
		{"i440fx", []string{"-M", "pc"}, 30, "acpi", "pci.0/02"},
		{"i440fx with a bridge", []string{"-M", "pc", "-device", "pci-bridge,id=b1,chassis_nr=1"}, 60, "acpi", "pci.0/03"},
		{"i440fx with a bridge without SHPC", []string{"-M", "pc", "-device", "pci-bridge,id=b1,chassis_nr=1,shpc=off"}, 61, "acpi", "pci.0/03"},
		{"i440fx with ACPI on bridges alone", slices.Concat(pcBridges, []string{"-M", "pc", "-global", "PIIX4_PM.acpi-root-pci-hotplug=off"}), 63, "acpi", "b1/01"},
		{"i440fx with ACPI on its root alone", slices.Concat(pcBridges, []string{"-M", "pc", "-global", "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off"}), 28 + 31, "acpi", "pci.0/04"},
		{"i440fx with a second root", []string{"-M", "pc", "-device", "pxb,id=px,bus_nr=128,bus=pci.0"}, 30, "acpi", "pci.0/03"},
		{"root ports, one that bears the name of the root", []string{"-M", "q35", "-device", "pcie-root-port,id=p1,chassis=1", "-device", "pcie-root-port,chassis=2"}, 1, "acpi", "p1/00"},
		{"packed root ports", []string{
			"-M", "q35", "-device", "pcie-root-port,id=p0,addr=5.0,multifunction=on,chassis=1",
			"-device", "pcie-root-port,id=p1,addr=5.1,chassis=2", "-device", "pcie-root-port,id=p7,addr=5.7,chassis=3",
		}, 3, "acpi", ""},
		{"port that is closed", []string{"-M", "q35", "-device", "pcie-root-port,id=p1,chassis=1,hotplug=off", "-device", "pcie-root-port,id=p2,chassis=2"}, 1, "acpi", "p2/00"},
		{"switch", []string{
			"-M", "q35", "-device", "pcie-root-port,id=p1,chassis=1", "-device", "x3130-upstream,id=up,bus=p1",
			"-device", "xio3130-downstream,id=dn,bus=up,chassis=7,slot=1,addr=1",
		}, 1, "acpi", "dn/00"},
		{"nested bridges", slices.Concat(oneBridge, []string{
			"-device", "pci-bridge,id=in1,bus=br1,addr=1,chassis_nr=2,shpc=off", "-device", "pci-bridge,id=in2,bus=in1,addr=3,chassis_nr=3",
		}), 30 + 31 + 31, "acpi", ""},
		{"second root", []string{
			"-M", "q35", "-device", "pxb-pcie,id=px,bus_nr=128,bus=pcie.0", "-device", "pcie-root-port,id=p1,bus=px,chassis=1",
			"-device", "pcie-root-port,id=p2,bus=px,chassis=2", "-device", "pcie-pci-bridge,id=b1,bus=p2",
		}, 1 + 31, "native", "p1/00"},
		{"native", slices.Concat(nativeHotplug, oneBridge, []string{"-device", "pcie-root-port,id=p2,chassis=2"}), 32, "native", "p2/00"},
		{"native without SHPC", slices.Concat(nativeHotplug, oneBridge, []string{
			"-device", "pci-bridge,id=in1,bus=br1,addr=1,chassis_nr=2,shpc=off",
		}), 30, "native", "br1/02"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := dialQEMU(t, qmptest.StartQEMU(t, c.args...))
			s, err := v.Status(t.Context())
			require.NoError(t, err)
			assert.Equal(t, c.total, s.SlotsTotal)
			assert.Equal(t, c.hotplug, s.Hotplug)
			n := newTaps(t)
			slot, err := v.Plug(t.Context(), n.nic(t, 1))
			require.NoError(t, err)
			if c.first != "" {
				assert.Equal(t, c.first, slot)
			}
			for i := 2; i <= c.total-s.SlotsUsed; i++ {
				_, err := v.Plug(t.Context(), n.nic(t, 1))
				require.NoError(t, err, "the %dth", i)
			}
			_, err = v.Plug(t.Context(), n.nic(t, 1))
			var full *vnic.NoSlotError
			require.ErrorAs(t, err, &full)
			assert.Equal(t, vnic.NoSlotError{VM: "vm1", Used: c.total, Total: c.total}, *full)
		})
	}
}

func TestIntegrationKill(t *testing.T) {
	n := newTaps(t)
	q := qmptest.StartQEMU(t, oneBridge...)
	v := dialQEMU(t, q)
	nic := n.nic(t, 1)
	_, err := v.Plug(t.Context(), nic)
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() { result <- v.Unplug(context.WithoutCancel(t.Context()), nic.ID) }()
	require.NoError(t, v.SetLink(t.Context(), nic.ID, false))
	q.Kill()
	require.ErrorIs(t, <-result, vnic.ErrVMGone)
	_, open := <-v.Events()
	assert.False(t, open)
	_, err = v.Plug(t.Context(), nic)
	require.ErrorIs(t, err, vnic.ErrVMGone)
}

// TestIntegrationLongReply is the one that go-qemu's monitor dies of.
func TestIntegrationLongReply(t *testing.T) {
	v := dialQEMU(t, qmptest.StartQEMU(t, "-M", "q35"))
	out, err := v.conn.Run([]byte(`{"execute": "query-qmp-schema"}`))
	require.NoError(t, err)
	assert.Greater(t, len(out), 64<<10)
	assert.True(t, json.Valid(out))
}

func TestIntegrationPermission(t *testing.T) {
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, err := strconv.Atoi(nobody.Uid)
	require.NoError(t, err)
	s := qmptest.NewServer(t, qmptest.NewMachine(1, 0).Handle)
	require.NoError(t, os.Chmod(s.Path, 0o600))
	ns, err := netnsx.Current()
	require.NoError(t, err)
	defer ns.Close()
	// Do gives us a thread of our own, whose rights alone we lower.
	require.NoError(t, ns.Do(func() error {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			return errno
		}
		defer syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0)) //nolint:errcheck // back to root can't fail
		_, err := Dial(context.Background(), vnic.VM{Name: "vm1", QMP: s.Path}, slog.New(slog.DiscardHandler))
		assert.ErrorIs(t, err, os.ErrPermission)
		assert.ErrorContains(t, err, "write access to the socket")
		return nil
	}))
}
