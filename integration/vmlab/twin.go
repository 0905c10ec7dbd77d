package vmlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Twin is a QEMU that waits for a guest to move to it. It has the arguments of the
// one that the guest is in, with sockets and logs of its own.
type Twin struct {
	// VM is the guest once it has moved; before, it takes no commands.
	*VM
}

// Twin starts a QEMU that waits for the guest of vm to move to it. Its files are
// named as vm's with the suffix; extra are further arguments.
func (vm *VM) Twin(ctx context.Context, suffix string, extra ...string) (*Twin, error) {
	cfg := vm.cfg
	if cfg.Libvirt != nil {
		return nil, fmt.Errorf("twin of vm %s: the lab moves no domains of libvirt", cfg.Name)
	}
	cfg.twin = suffix
	cfg.ExtraArgs = append(slices.Clone(cfg.ExtraArgs), "-incoming", "defer")
	cfg.ExtraArgs = append(cfg.ExtraArgs, extra...)
	for _, kind := range []string{"qmp", "agent", "serial"} {
		if err := os.Remove(cfg.file(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("twin of vm %s: %w", cfg.Name, err)
		}
	}
	t := &Twin{&VM{lab: vm.lab, cfg: cfg}}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, cfg.BootTimeout)
	defer cancel()
	if err := t.start(ctx); err != nil {
		return nil, fmt.Errorf("twin of vm %s: %w", cfg.Name, err)
	}
	if _, err := t.mon.Do(ctx, "qmp_capabilities", nil); err != nil {
		t.Kill()
		return nil, fmt.Errorf("twin of vm %s: await qemu: %w\n--- qemu:\n%s", cfg.Name, err, t.log("qemu"))
	}
	vm.lab.log.Debug("qemu waits for a guest", "vm", cfg.Name, "took", time.Since(began))
	return t, nil
}

// Arrived returns once the guest has moved and takes commands.
func (t *Twin) Arrived(ctx context.Context) error {
	if err := t.sess.hello(ctx); err != nil {
		return fmt.Errorf("await the guest that moved: %w\n--- qemu:\n%s", err, t.log("qemu"))
	}
	return nil
}
