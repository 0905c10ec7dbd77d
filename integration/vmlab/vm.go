package vmlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// quitTime is how long QEMU has for ending by itself.
const quitTime = 5 * time.Second

// VM is a running guest. It is safe for concurrent use, but for Restart,
// which must not overlap with other calls.
type VM struct {
	lab *Lab
	cfg Config

	proc process
	sess *session
	mon  *Monitor
}

// Boot starts a guest and returns when it takes commands. The error holds the
// end of the guest's console and what QEMU complained about. Guests may be
// booted concurrently.
func (l *Lab) Boot(ctx context.Context, cfg Config) (*VM, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("boot vm: %w", err)
	}
	if err := os.Remove(cfg.file("serial")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("boot vm %s: %w", cfg.Name, err)
	}
	vm := &VM{lab: l, cfg: cfg}
	if err := vm.boot(ctx); err != nil {
		return nil, err
	}
	return vm, nil
}

// BootAll boots guests at once. When one fails, the others are closed.
func (l *Lab) BootAll(ctx context.Context, cfgs ...Config) ([]*VM, error) {
	vms := make([]*VM, len(cfgs))
	errs := make([]error, len(cfgs))
	var wg sync.WaitGroup
	for i, cfg := range cfgs {
		wg.Go(func() { vms[i], errs[i] = l.Boot(ctx, cfg) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil {
		return vms, nil
	}
	for _, vm := range vms {
		if vm != nil {
			err = errors.Join(err, vm.Close()) //nolint:contextcheck // has to be done when ctx has ended too
		}
	}
	return nil, err
}

// Restart kills the guest if it still runs and boots it again with the same
// configuration, sockets and console log.
func (vm *VM) Restart(ctx context.Context) error {
	vm.Kill()
	return vm.boot(ctx)
}

func (vm *VM) boot(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, vm.cfg.BootTimeout)
	defer cancel()
	err := vm.start(ctx)
	if err == nil {
		if err = vm.awaitGuest(ctx); err != nil {
			vm.Kill()
		}
	}
	if err != nil {
		return fmt.Errorf("boot vm %s: %w\n--- qemu:\n%s\n--- console:\n%s", vm.cfg.Name, err, vm.log("qemu"), vm.SerialTail())
	}
	vm.lab.log.Debug("guest runs", "vm", vm.cfg.Name, "accel", vm.lab.Accel, "took", time.Since(began))
	return nil
}

// start starts QEMU with both of the lab's channels.
func (vm *VM) start(ctx context.Context) error {
	if vm.cfg.Libvirt != nil {
		return vm.startDomain(ctx)
	}
	labHost, labQEMU, err := socketPair("lab")
	if err != nil {
		return err
	}
	defer labQEMU.Close()
	monHost, monQEMU, err := socketPair("monitor")
	if err != nil {
		labHost.Close()
		return err
	}
	defer monQEMU.Close()
	proc, err := vm.exec(labQEMU, monQEMU)
	if err != nil {
		labHost.Close()
		monHost.Close()
		return err
	}
	vm.proc = proc
	vm.sess = newSession(labHost)
	vm.mon = newMonitor(monHost)
	return nil
}

func (vm *VM) exec(labQEMU, monQEMU *os.File) (*Process, error) {
	log, err := os.Create(vm.cfg.file("qemu"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args, err := vm.cfg.args(vm.lab.Kernel.Image, vm.lab.Accel)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(vm.lab.qemu, args...) //nolint:noctx // lives as long as the VM
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{labQEMU, monQEMU} // labFD, monFD
	return StartProcess(cmd)
}

func (vm *VM) awaitGuest(ctx context.Context) error {
	if _, err := vm.mon.Do(ctx, "qmp_capabilities", nil); err != nil {
		return fmt.Errorf("await qemu: %w", err)
	}
	if err := vm.sess.hello(ctx); err != nil {
		return fmt.Errorf("await guest: %w", err)
	}
	return nil
}

// socketPair returns a connection and the file of its other end.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	other := os.NewFile(uintptr(fds[1]), name)
	f := os.NewFile(uintptr(fds[0]), name)
	defer f.Close() // FileConn has its own copy
	conn, err := net.FileConn(f)
	if err != nil {
		other.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return conn, other, nil
}

// Name returns the VM's name.
func (vm *VM) Name() string { return vm.cfg.Name }

// PID returns QEMU's process id.
func (vm *VM) PID() int { return vm.proc.PID() }

// Done is closed when QEMU has ended.
func (vm *VM) Done() <-chan struct{} { return vm.proc.Done() }

// Ref returns what the host's daemon needs to know of the VM.
func (vm *VM) Ref() vnic.VM {
	ref := vnic.VM{Name: vm.cfg.Name, Channel: vm.cfg.file("agent")}
	if vm.cfg.Libvirt != nil {
		ref.Libvirt = vm.cfg.Libvirt.Domain(vm.cfg.Name)
	} else {
		ref.QMP = vm.cfg.file("qmp")
	}
	return ref
}

// Monitor returns the lab's own monitor; brfuse has another one. It ends with
// QEMU, so ask for it again after a Restart.
func (vm *VM) Monitor() *Monitor { return vm.mon }

// Kill kills QEMU as kill -9 does and waits until it is gone. Its sockets stay
// as files. It may be called again.
func (vm *VM) Kill() {
	vm.proc.Kill()
	vm.sess.close()
	vm.mon.close()
}

// Close ends QEMU and removes its sockets; the logs stay. It takes some seconds
// at most. It may be called again.
func (vm *VM) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), quitTime)
	defer cancel()
	if _, err := vm.mon.Do(ctx, "quit", nil); err == nil {
		select {
		case <-vm.proc.Done():
		case <-ctx.Done():
		}
	}
	vm.Kill()
	var errs []error
	for _, kind := range []string{"qmp", "agent"} {
		if err := os.Remove(vm.cfg.file(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("close vm %s: %w", vm.cfg.Name, err))
		}
	}
	return errors.Join(errs...)
}

// SerialTail returns the end of the guest's console.
func (vm *VM) SerialTail() string { return vm.log("serial") }

func (vm *VM) log(kind string) string {
	b, err := os.ReadFile(vm.cfg.file(kind))
	if err != nil {
		return err.Error()
	}
	return tail(strings.ReplaceAll(string(b), "\r", ""), 4000)
}
