package vmlab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process on the host. It has a session of its own and is killed
// by the kernel when the program that started it ends, by whatever cause. It is
// safe for concurrent use.
type Process struct {
	name string
	proc *os.Process
	done chan struct{}
	err  error // how it ended; valid when done is closed
}

// StartProcess starts cmd, which may have been given files and a folder, but no
// context.
func StartProcess(cmd *exec.Cmd) (*Process, error) {
	attr := cmd.SysProcAttr
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Setsid, attr.Pdeathsig = true, unix.SIGKILL
	cmd.SysProcAttr = attr
	p := &Process{name: cmd.Args[0], done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal tells of the death of the thread that forked, and threads
		// do die: a goroutine that ends locked to one takes it along. This one is
		// kept for as long as the child.
		runtime.LockOSThread()         //nolint:forbidigo // see above; no namespace is changed
		defer runtime.UnlockOSThread() //nolint:forbidigo // see above
		err := cmd.Start()
		p.proc = cmd.Process
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// PID returns the process id. It is valid until Done.
func (p *Process) PID() int { return p.proc.Pid }

// Done is closed when the process has ended and has been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended: nil for exit code 0, else an
// [*exec.ExitError]. Call it after Done.
func (p *Process) Err() error { return p.err }

// Signal sends a signal. The error is [os.ErrProcessDone] after the end.
func (p *Process) Signal(sig os.Signal) error { return p.proc.Signal(sig) }

// Kill kills the process and waits until it is gone. It may be called again.
func (p *Process) Kill() {
	p.proc.Kill() //nolint:errcheck // ended already: what is wanted
	<-p.done
}
