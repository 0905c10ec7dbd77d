package libvirtvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/backend/backendtest"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/libvirttest"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// site is a libvirtd with one domain, and a network namespace for its taps.
type site struct {
	lv     *libvirttest.Daemon
	ns     *netnsx.NS
	dir    string
	killed bool
}

// oneBridge is 31 slots.
const oneBridge = `
    <controller type='pci' index='1' model='pcie-root-port'/>
    <controller type='pci' index='2' model='pcie-to-pci-bridge'>
      <address type='pci' bus='0x01' slot='0x00'/>
    </controller>`

// commandline begins arguments for QEMU, behind the devices.
const commandline = "<qemu:commandline>"

// domainXML is a machine of that type with these devices, and arguments for QEMU.
// boot is empty or boots a kernel.
func domainXML(machine, boot, devices string) string {
	devices, args, found := strings.Cut(devices, commandline)
	if found {
		args = commandline + args
	}
	return fmt.Sprintf(`<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name>
  <uuid>5d0b7d0e-4f0c-4a5e-9c55-6d1f6c1f8f02</uuid>
  <memory unit='MiB'>256</memory>
  <os><type arch='x86_64' machine='%s'>hvm</type>%s</os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <controller type='usb' model='none'/><memballoon model='none'/>%s
  </devices>%s
</domain>`, machine, boot, devices, args)
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		require.Empty(t, os.Getenv("CI"), "CI must run as root")
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	lv, err := libvirttest.Start(ctx, libvirttest.Options{NS: ns})
	if errors.Is(err, libvirttest.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			console, _ := os.ReadFile(filepath.Join(dir, "serial"))
			t.Logf("libvirtd: %s\nvm1: %s\nconsole: %s", lv.Log(), lv.DomainLog("vm1"), console)
		}
		assert.NoError(t, lv.Close())
	})
	return &site{lv: lv, ns: ns, dir: dir}
}

// withGuest boots a real guest with one bridge, which lets go of devices.
func withGuest(t *testing.T) *site {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	initrd, err := lab.Build(ctx, filepath.Join(s.dir, "initrd"), vmlab.Image{})
	require.NoError(t, err)
	boot := fmt.Sprintf(`<kernel>%s</kernel><initrd>%s</initrd><cmdline>console=ttyS0 quiet panic=-1</cmdline>`, lab.Kernel.Image, initrd)
	serial := fmt.Sprintf(`
    <serial type='file'><source path='%s'/></serial>
    <channel type='unix'>
      <source mode='bind' path='%s'/>
      <target type='virtio' name='org.brfuse.agent.0'/>
    </channel>
    <channel type='unix'>
      <source mode='bind' path='%s'/>
      <target type='virtio' name='org.brfuse.lab.0'/>
    </channel>`, filepath.Join(s.dir, "serial"), filepath.Join(s.dir, "agent"), filepath.Join(s.dir, "lab"))
	s.run(ctx, t, domainXML("q35", boot, oneBridge+serial))
	return s
}

// withoutGuest starts a q35 whose processor never runs.
func withoutGuest(t *testing.T, devices string) *site {
	t.Helper()
	s := newSite(t)
	s.startPaused(t, "q35", devices)
	return s
}

// startPaused starts a machine whose processor never runs, in the place of another.
func (s *site) startPaused(t *testing.T, machine, devices string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if list, err := s.lv.Virsh(ctx, "list", "--name"); err == nil && strings.Contains(list, "vm1") {
		require.NoError(t, s.lv.DestroyDomain(ctx, "vm1"))
	}
	require.NoError(t, s.lv.Define(ctx, domainXML(machine, "", devices)))
	_, err := s.lv.Virsh(ctx, "start", "--paused", "vm1")
	require.NoError(t, err)
}

func (s *site) run(ctx context.Context, t *testing.T, xml string) {
	t.Helper()
	require.NoError(t, s.lv.Define(ctx, xml))
	require.NoError(t, s.lv.StartDomain(ctx, "vm1"))
}

func (s *site) ref() vnic.VM { return vnic.VM{Name: "vm1", Libvirt: s.lv.Address("vm1")} }

func (s *site) dial(t *testing.T) *VM {
	t.Helper()
	v, err := Dial(t.Context(), s.ref(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

// machine is the site as the conformance test wants it.
func (s *site) machine(t *testing.T) backendtest.Machine {
	t.Helper()
	if s.killed {
		require.NoError(t, s.lv.StartDomain(t.Context(), "vm1"))
		s.killed = false
	}
	v := s.dial(t)
	t.Cleanup(func() { s.clear(t, v) })
	return backendtest.Machine{
		VM: v, Files: func(t *testing.T, tap string, queues int) []*os.File {
			t.Helper()
			s.tap(t, tap, queues)
			return nullFiles(t, queues)
		},
		Eject: func(id vnic.ID) { s.eject(t, id) },
		Kill: func() {
			s.killed = true
			require.NoError(t, s.lv.KillDomain(t.Context(), "vm1"))
		},
	}
}

func nullFiles(t *testing.T, queues int) []*os.File {
	t.Helper()
	var files []*os.File
	for range queues {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return files
}

// clear removes what a test left.
func (s *site) clear(t *testing.T, v *VM) {
	t.Helper()
	require.NoError(t, v.Close())
	if s.killed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	v, err := Dial(ctx, s.ref(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer v.Close()
	list, err := v.List(ctx)
	require.NoError(t, err)
	errs := make(chan error, len(list))
	for _, d := range list {
		go func() { errs <- v.Unplug(ctx, d.ID) }()
	}
	for range list {
		require.NoError(t, <-errs)
	}
}

// tap makes a tap that persists.
func (s *site) tap(t *testing.T, name string, queues int) {
	t.Helper()
	require.NoError(t, s.ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		flags := unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
		if queues > 1 {
			flags |= unix.IFF_MULTI_QUEUE
		}
		ifr.SetUint16(uint16(flags))
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}))
}

func (s *site) nic(t *testing.T, queues int) backend.NIC {
	t.Helper()
	id := vnic.NewID()
	s.tap(t, id.TapName(), queues)
	return backend.NIC{ID: id, MAC: vnic.NewMAC(), MTU: 1400, Queues: queues, Tap: id.TapName()}
}

// qmp runs a command of QEMU's behind libvirt's back.
func (s *site) qmp(t *testing.T, command string, args map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := s.lv.Virsh(ctx, "qemu-monitor-command", "vm1", string(b))
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

// eject removes a device without libvirt having been asked to.
func (s *site) eject(t *testing.T, id vnic.ID) {
	t.Helper()
	s.qmp(t, "device_del", map[string]any{"id": alias(id)})
}

// TestIntegrationConformance runs the tests that every backend passes on a real
// libvirtd with a real guest.
func TestIntegrationConformance(t *testing.T) {
	s := withGuest(t)
	backendtest.Conformance(t, backendtest.Harness{Start: s.machine})
}
