package vmlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
)

// probeTime is how long a guest has for booting under KVM. A real one takes a
// second; one that hangs takes all of it, once per boot of the machine.
const probeTime = 5 * time.Second

const probeLine = "kvm-probe: a guest runs"

// chooseAccel returns what BRFUSE_ACCEL says, or else "kvm" when a guest boots
// under it and "tcg" when not. The answer holds until the machine reboots.
func (l *Lab) chooseAccel(ctx context.Context) (string, error) {
	switch accel := os.Getenv("BRFUSE_ACCEL"); accel {
	case "kvm", "tcg":
		return accel, nil
	case "":
	default:
		return "", fmt.Errorf("BRFUSE_ACCEL is %q, not kvm or tcg", accel)
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(bootID)) + " " + l.Kernel.Release + " "
	file := filepath.Join(l.cache, "accel")
	unlock, err := lock(ctx, file+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if b, err := os.ReadFile(file); err == nil {
		if accel, ok := strings.CutPrefix(string(b), key); ok {
			return accel, nil
		}
	}
	accel := "kvm"
	if err := ProbeKVM(ctx, l.Kernel.Image, l.busybox); err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		l.log.Info("guests run under software emulation", "reason", err)
		accel = "tcg"
	}
	return accel, os.WriteFile(file, []byte(key+accel), 0o644)
}

// ProbeKVM boots a tiny guest under KVM, of a kernel's bzImage and a static
// busybox, and returns nil when it has run. It returns at once when /dev/kvm
// can't be opened, and after some seconds when the guest hangs: the device can
// be there and guests not run.
func ProbeKVM(ctx context.Context, kernel, busybox string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("probe kvm: %w", err)
	}
	f.Close()
	dir, err := os.MkdirTemp("", "brfuse-probe-")
	if err != nil {
		return fmt.Errorf("probe kvm: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	w := &tree{}
	w.addFile("/bin/busybox", busybox)
	w.add(cpio.CharDev("dev/console", 0o600, 5, 1))
	w.add(cpio.StaticFile("init", "#!/bin/busybox sh\necho '"+probeLine+"'\n/bin/busybox poweroff -f\n", 0o755))
	if err := w.write(initrd); err != nil {
		return fmt.Errorf("probe kvm: %w", err)
	}
	return bootProbe(ctx, dir, kernel, initrd)
}

// bootProbe runs the guest to its end, which it brings about itself.
func bootProbe(ctx context.Context, dir, kernel, initrd string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	serial := filepath.Join(dir, "serial")
	args := append(cpuArgs("kvm"), "-M", "q35", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:"+serial, "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1")
	cmd := exec.Command("qemu-system-x86_64", args...) //nolint:noctx // killed below
	var complaints strings.Builder
	cmd.Stderr = &complaints
	proc, err := StartProcess(cmd)
	if err != nil {
		return fmt.Errorf("probe kvm: %w", err)
	}
	defer proc.Kill()
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Kill()
	}
	out, err := os.ReadFile(serial)
	if err == nil && !strings.Contains(string(out), probeLine) {
		err = fmt.Errorf("the guest printed nothing of its own; qemu ended with %w: %s", proc.Err(), tail(complaints.String(), 500))
		if ctx.Err() != nil {
			err = fmt.Errorf("the guest did not run within %v: %w", probeTime, ctx.Err())
		}
	}
	if err != nil {
		return fmt.Errorf("probe kvm: %w", err)
	}
	return nil
}
