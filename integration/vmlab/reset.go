package vmlab

import (
	"context"
	"errors"
	"fmt"
)

// errNoReboots is returned for a guest whose QEMU would end.
var errNoReboots = errors.New("it was booted without Reboots")

// Reset resets the guest as the button does: QEMU and what is plugged into it
// stay, and the guest boots anew. It returns when the guest takes commands
// again, and must not overlap with other calls. The VM must have been booted
// with [Config].Reboots.
func (vm *VM) Reset(ctx context.Context) error {
	return vm.bootAgain(ctx, func(ctx context.Context) error {
		_, err := vm.mon.Do(ctx, "system_reset", nil)
		return err
	})
}

// Reboot is [VM.Reset] by the guest itself, which doesn't end its processes first.
func (vm *VM) Reboot(ctx context.Context) error {
	return vm.bootAgain(ctx, func(ctx context.Context) error {
		go vm.Run(ctx, "busybox", "reboot", "-f") //nolint:errcheck // there will be no answer
		return nil
	})
}

func (vm *VM) bootAgain(ctx context.Context, begin func(context.Context) error) error {
	if !vm.cfg.Reboots {
		return fmt.Errorf("reboot vm %s: %w", vm.cfg.Name, errNoReboots)
	}
	ctx, cancel := context.WithTimeout(ctx, vm.cfg.BootTimeout)
	defer cancel()
	mark := vm.mon.Mark()
	err := begin(ctx)
	if err == nil {
		_, err = vm.mon.Await(ctx, mark, func(ev Event) bool { return ev.Name == "RESET" })
	}
	if err == nil {
		err = vm.sess.hello(ctx)
	}
	if err != nil {
		return fmt.Errorf("reboot vm %s: %w\n--- console:\n%s", vm.cfg.Name, err, vm.SerialTail())
	}
	return nil
}
