package vmlab

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/hostside/topology"
)

// maxSocketPath is the longest path of a unix socket on Linux, in bytes.
const maxSocketPath = 107

// Config says how to boot a guest.
type Config struct {
	// Name names the VM, its files in Dir and the guest's host name. Required.
	Name string
	// Dir is a folder for sockets and logs; several VMs may share it. It must be
	// there, and its path short: those of unix sockets have 107 bytes at most. Required.
	Dir string
	// Initrd is the file that [Lab.Build] wrote. Required.
	Initrd string
	// Disk is a file with an ext4 file system that becomes the guest's root, with
	// what the initramfs has copied to it; nothing is written back, so guests may
	// share it. The image must have the module virtio_blk. Default: the initramfs is
	// the root.
	Disk string
	// KeepWrites has Disk take what the guest writes, so that a [VM.Restart] finds it.
	// The file is the guest's alone then. Default: see Disk.
	KeepWrites bool
	// Mem is the memory in MiB. Default: 384.
	Mem int
	// CPUs is the number of virtual CPUs. Default: 1.
	CPUs int
	// VNICs is for how many hotplugged vNICs there are slots. Default: 31.
	VNICs int
	// Machine is QEMU's machine type, as topology has it. Default: q35. A domain has
	// that one.
	Machine string
	// Reboots has QEMU boot the guest again when it reboots, panics or is reset.
	// Default: QEMU ends then.
	Reboots bool
	// Append is added to the kernel's command line.
	Append string
	// Libvirt has the guest run as a domain of that libvirtd. Default: QEMU is started
	// by the lab, and brfuse reaches it by QMP.
	Libvirt Libvirt
	// ExtraArgs are added to QEMU's arguments.
	ExtraArgs []string
	// BootTimeout is how long the guest has until it answers. Default: two
	// minutes; it takes 2 s under software emulation, and 20 on a very busy machine.
	BootTimeout time.Duration

	// twin is added to the names of files: those of a QEMU that a guest moves to.
	twin string
}

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" || strings.ContainsAny(c.Name, "/, ") {
		return c, fmt.Errorf("vm name %q: empty or with a slash, comma or space", c.Name)
	}
	if c.Dir == "" || c.Initrd == "" {
		return c, errors.New("dir and initrd are required")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, err
	}
	c.Dir = dir
	if n := len(c.file("agent")); n > maxSocketPath {
		return c, fmt.Errorf("socket path %s has %d bytes, %d are possible: choose a shorter Dir", c.file("agent"), n, maxSocketPath)
	}
	c.Mem = cmp.Or(c.Mem, 384)
	c.CPUs = cmp.Or(c.CPUs, 1)
	c.VNICs = cmp.Or(c.VNICs, 31)
	c.Machine = cmp.Or(c.Machine, topology.Q35)
	c.BootTimeout = cmp.Or(c.BootTimeout, 2*time.Minute)
	return c, nil
}

// file is the path of one of the VM's files.
func (c Config) file(kind string) string { return filepath.Join(c.Dir, c.Name+c.twin+"."+kind) }

// Descriptors that QEMU inherits, beside the standard ones.
const (
	labFD = 3 // of the lab's virtio-serial port
	monFD = 4 // of the lab's monitor
)

// args returns QEMU's arguments: those of a small guest, and those that
// `brfuse topology` prints. The sockets are QEMU's own to make; the lab's two
// channels are socket pairs, which are connected from the start.
func (c Config) args(kernel, accel string) ([]string, error) {
	layout, err := topology.PlanFor(topology.Wish{VNICs: c.VNICs, CPUs: c.CPUs, Machine: c.Machine})
	if err != nil {
		return nil, err
	}
	layout.QMP, layout.Channel = c.file("qmp"), c.file("agent")
	args := []string{
		"-name", c.Name + ",debug-threads=on", "-M", c.Machine,
		"-m", strconv.Itoa(c.Mem), "-smp", strconv.Itoa(c.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", kernel, "-initrd", c.Initrd, "-append", c.cmdline(),
		"-chardev", "file,id=console,append=on,path=" + c.file("serial"), "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=labqmp,fd=%d", monFD), "-mon", "labqmp,mode=control",
		"-device", "virtio-serial-pci,id=lab",
		"-chardev", fmt.Sprintf("socket,id=labport,fd=%d", labFD),
		"-device", "virtserialport,bus=lab.0,chardev=labport,name=org.brfuse.lab.0",
	}
	if !c.Reboots {
		args = append(args, "-no-reboot")
	}
	if c.Disk != "" {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot="+onOff(!c.KeepWrites)+",file="+c.Disk)
	}
	args = append(args, cpuArgs(accel)...)
	args = append(args, layout.QEMUArgs()...)
	return append(args, c.ExtraArgs...), nil
}

// cmdline is the kernel's command line.
func (c Config) cmdline() string {
	s := "console=ttyS0 quiet panic=-1 brfuse.name=" + c.Name
	if c.Disk != "" {
		s += " brfuse.root=/dev/vda"
	}
	if c.Append != "" {
		s += " " + c.Append
	}
	return s
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// cpuArgs returns the accelerator and the most of a CPU that it has. Under KVM
// inside of a VM, QEMU may be unable to set IA32_ARCH_CAPABILITIES and aborts.
func cpuArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host,arch-capabilities=off"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
}
