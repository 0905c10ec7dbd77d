package libvirttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Virsh runs virsh and returns what it prints.
func (d *Daemon) Virsh(ctx context.Context, args ...string) (string, error) {
	return d.virsh(ctx, "", args...)
}

func (d *Daemon) virsh(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"--quiet", "--connect", d.URI()}, args...)...)
	var complaints strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return string(out), nil
}

// Define makes a domain, or changes the one of the same name and UUID. It doesn't start it.
func (d *Daemon) Define(ctx context.Context, xml string) error {
	_, err := d.virsh(ctx, xml, "define", "/dev/stdin")
	return err
}

// StartDomain starts a defined domain and returns when its QEMU runs; the guest
// then begins to boot. The error has the end of QEMU's log.
func (d *Daemon) StartDomain(ctx context.Context, name string) error {
	if _, err := d.Virsh(ctx, "start", name); err != nil {
		return fmt.Errorf("%w\n%s", err, d.DomainLog(name))
	}
	return nil
}

// DestroyDomain kills a domain's QEMU. The definition stays.
func (d *Daemon) DestroyDomain(ctx context.Context, name string) error {
	_, err := d.Virsh(ctx, "destroy", name)
	return err
}

// Undefine forgets a domain that is shut off.
func (d *Daemon) Undefine(ctx context.Context, name string) error {
	_, err := d.Virsh(ctx, "undefine", name)
	return err
}

// DomainPID returns the process of a domain's QEMU.
func (d *Daemon) DomainPID(name string) (int, error) {
	return d.filePID(filepath.Join("libvirt/qemu", name+".pid"))
}

// KillDomain ends a domain's QEMU as kill -9 does, and waits until it is gone.
// Whether libvirtd knows by then is another matter.
func (d *Daemon) KillDomain(ctx context.Context, name string) error {
	pid, err := d.DomainPID(name)
	if err != nil {
		return fmt.Errorf("kill domain %s: %w", name, err)
	}
	return killAndWait(ctx, pid)
}

// DomainLog returns the end of what libvirtd and QEMU logged of a domain.
func (d *Daemon) DomainLog(name string) string {
	b, err := os.ReadFile(filepath.Join(d.dir, "log/libvirt/qemu", name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}

// AttachDevice plugs a device into a running domain.
func (d *Daemon) AttachDevice(ctx context.Context, name, xml string) error {
	_, err := d.virsh(ctx, xml, "attach-device", name, "/dev/stdin", "--live")
	return err
}
