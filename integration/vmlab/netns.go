package vmlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// NetNS is a network namespace of this machine, for the daemon under test and
// what talks to it. It has no name: it is gone, with its links and rules, when
// it is closed and the processes in it have ended, also after a kill -9.
type NetNS struct {
	ns *netnsx.NS
}

// NewNetNS makes a namespace with lo up. It takes root.
func NewNetNS(ctx context.Context) (*NetNS, error) {
	ns, err := netnsx.New()
	if err != nil {
		return nil, err
	}
	n := &NetNS{ns: ns}
	res, err := n.Run(ctx, "ip", "link", "set", "lo", "up")
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up network namespace: %w", err), n.Close())
	}
	return n, nil
}

// NS returns the namespace itself, which stays n's.
func (n *NetNS) NS() *netnsx.NS { return n.ns }

// Path returns a path of the namespace for as long as this program runs and n
// is not closed, as in `nsenter --net=PATH ip link`.
func (n *NetNS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.FD()) }

// Command returns a command that runs in the namespace, for [StartProcess] or
// for use as it is. The mount namespace stays, so /sys/class/net shows the
// links of this program's namespace, not those of n.
func (n *NetNS) Command(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + n.Path(), "--"}, argv...)...) //nolint:noctx // the caller bounds it
}

// Run runs a command in the namespace and returns when it has ended. A code
// other than 0 is no error. When ctx ends, the command is killed with its session.
func (n *NetNS) Run(ctx context.Context, argv ...string) (Result, error) {
	var stdout, stderr strings.Builder
	c := n.Command(argv...)
	cmd := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err := cmd.Run()
	res := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return res, fmt.Errorf("run %s: %w", strings.Join(argv, " "), errors.Join(err, context.Cause(ctx)))
	}
	res.Code = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		res.Code = 128 + int(ws.Signal())
	}
	return res, nil
}

// Close lets go of the namespace. It is called once.
func (n *NetNS) Close() error { return n.ns.Close() }
