package vmlab

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	// Code is the exit code; 128 + signal when a signal ended it.
	Code int
}

// Err returns nil for exit code 0, and else an error with the end of the output.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("exit code %d: %s", r.Code, tail(r.Stdout+r.Stderr, 2000))
}

// Run runs a command in the guest and returns when it has ended. A code other
// than 0 is no error. When ctx ends, the command's session is killed. Of each
// of its outputs 1 MiB is kept, and more is an error.
func (vm *VM) Run(ctx context.Context, argv ...string) (Result, error) {
	return vm.run(ctx, labproto.Request{Argv: argv})
}

// Shell runs a script by the guest's /bin/sh, as Run does.
func (vm *VM) Shell(ctx context.Context, script string) (Result, error) {
	return vm.run(ctx, labproto.Request{Argv: []string{"/bin/sh", "-s"}, Stdin: []byte(script)})
}

// Output runs a command in the guest and returns its trimmed standard output.
// A code other than 0 is an error.
func (vm *VM) Output(ctx context.Context, argv ...string) (string, error) {
	res, err := vm.Run(ctx, argv...)
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return "", fmt.Errorf("vm %s: run %s: %w", vm.cfg.Name, strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(res.Stdout), nil
}

func (vm *VM) run(ctx context.Context, req labproto.Request) (Result, error) {
	req.Op = labproto.OpRun
	rep, err := vm.sess.do(ctx, req)
	res := Result{Stdout: string(rep.Stdout), Stderr: string(rep.Stderr), Code: rep.Code}
	if err == nil && rep.Truncated {
		err = fmt.Errorf("more than %d bytes of output", labproto.MaxOutput)
	}
	if err != nil {
		return res, fmt.Errorf("vm %s: run %s: %w", vm.cfg.Name, strings.Join(req.Argv, " "), err)
	}
	return res, nil
}

// GuestProcess is a process in a guest that Start or the image started.
type GuestProcess struct {
	vm  *VM
	PID int
}

// Command is a command to start in a guest.
type Command struct {
	// Argv are the program and its arguments. Required.
	Argv []string
	// Env are variables to add, as KEY=VALUE.
	Env []string
	// Netns is where it runs, as RunIn takes it. Default: the guest's first namespace.
	Netns string
	// Log is the name of the file in the guest's /run/log that its output is appended
	// to. Default: PROGRAM.log.
	Log string
}

// Start starts a command in the guest and does not wait for it. It goes on until
// it ends, is killed or the guest ends.
func (vm *VM) Start(ctx context.Context, c Command) (*GuestProcess, error) {
	rep, err := vm.sess.do(ctx, labproto.Request{Op: labproto.OpStart, Argv: c.Argv, Env: c.Env, Netns: c.Netns, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("vm %s: start %q: %w", vm.cfg.Name, c.Argv, err)
	}
	return &GuestProcess{vm: vm, PID: rep.PID}, nil
}

// Find returns the one process of that program, which Start or the image
// started.
func (vm *VM) Find(ctx context.Context, program string) (*GuestProcess, error) {
	out, err := vm.Output(ctx, "pidof", program)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(out)
	if err != nil {
		return nil, fmt.Errorf("vm %s: want one process of %s: %w", vm.cfg.Name, program, err)
	}
	return &GuestProcess{vm: vm, PID: pid}, nil
}

// Wait waits for the process's end and returns its code, as in [Result].
func (p *GuestProcess) Wait(ctx context.Context) (code int, err error) {
	rep, err := p.vm.sess.do(ctx, labproto.Request{Op: labproto.OpWait, PID: p.PID})
	if err != nil {
		return 0, fmt.Errorf("vm %s: wait for pid %d: %w", p.vm.cfg.Name, p.PID, err)
	}
	return rep.Code, nil
}

// Signal sends the process a signal.
func (p *GuestProcess) Signal(ctx context.Context, sig syscall.Signal) error {
	return p.vm.Signal(ctx, p.PID, sig)
}

// Kill kills the process as kill -9 does and waits until it is gone.
func (p *GuestProcess) Kill(ctx context.Context) error {
	if err := p.Signal(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := p.Wait(ctx)
	return err
}

// Signal sends a signal to a process of the guest.
func (vm *VM) Signal(ctx context.Context, pid int, sig syscall.Signal) error {
	if _, err := vm.sess.do(ctx, labproto.Request{Op: labproto.OpSignal, PID: pid, Signal: int(sig)}); err != nil {
		return fmt.Errorf("vm %s: send %v to pid %d: %w", vm.cfg.Name, sig, pid, err)
	}
	return nil
}

// Put writes a file in the guest. Its folder must be there.
func (vm *VM) Put(ctx context.Context, path string, data []byte, mode os.FileMode) error {
	req := labproto.Request{Op: labproto.OpPut, Path: path, Mode: uint32(mode.Perm())}
	for {
		rest := data[req.Offset:]
		req.Data = rest[:min(len(rest), labproto.Chunk)]
		if _, err := vm.sess.do(ctx, req); err != nil {
			return fmt.Errorf("vm %s: write %s: %w", vm.cfg.Name, path, err)
		}
		if req.Offset += int64(len(req.Data)); req.Offset == int64(len(data)) {
			return nil
		}
	}
}

// Get reads a file in the guest.
func (vm *VM) Get(ctx context.Context, path string) ([]byte, error) {
	var data []byte
	for {
		rep, err := vm.sess.do(ctx, labproto.Request{Op: labproto.OpGet, Path: path, Offset: int64(len(data))})
		if err != nil {
			return nil, fmt.Errorf("vm %s: read %s: %w", vm.cfg.Name, path, err)
		}
		if data = append(data, rep.Data...); rep.EOF {
			return data, nil
		}
	}
}

// AddPod makes a pod in the guest: a network namespace of that name in
// /run/netns, with lo up, and a process in it. The process is argv, its output
// in /run/log/pod-NAME.log, or else a sleep. Its pid is returned.
func (vm *VM) AddPod(ctx context.Context, name string, argv ...string) (pid int, err error) {
	out, err := vm.Output(ctx, append([]string{"podctl", "add", name}, argv...)...)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// RemovePod kills the pod's process and removes its namespace's name.
func (vm *VM) RemovePod(ctx context.Context, name string) error {
	_, err := vm.Output(ctx, "podctl", "rm", name)
	return err
}

// RunIn runs a command in a pod's network namespace, as Run does. The pod is
// named by a name in /run/netns, a path or a pid.
func (vm *VM) RunIn(ctx context.Context, pod string, argv ...string) (Result, error) {
	return vm.run(ctx, labproto.Request{Argv: argv, Netns: pod})
}
