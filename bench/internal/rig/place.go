package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// toolPath is where the guests have the program of bench/guest.
const toolPath = "/sbin/bench-guest"

const (
	stopLimit = 5 * time.Second // for a process to end by itself
	logLimit  = 5 * time.Second
)

// Place is where programs of a benchmark run: a network namespace of a guest, or
// that of its hypervisor. It is safe for concurrent use.
type Place struct {
	// Name tells places apart in errors: "guest a, pod bench".
	Name string

	vm    *vmlab.VM // nil: on the hypervisor
	netns string    // in the guest: a name; "" is the first one

	host *vmlab.NetNS
	dir  string // for logs
	tool string // path of the program of bench/guest
}

// started numbers logs: places come and go, their folder stays.
var started atomic.Uint64

// Guest returns the guest of the place, nil for that of a hypervisor.
func (p *Place) Guest() *vmlab.VM { return p.vm }

// Host returns the namespace of the hypervisor, nil for a place in a guest.
func (p *Place) Host() *vmlab.NetNS { return p.host }

// Netns returns the path of the place's namespace as its programs see it, "" for
// a place in which they are anyway.
func (p *Place) Netns() string {
	if p.netns == "" {
		return ""
	}
	return "/run/netns/" + p.netns
}

// Run runs a program and returns when it has ended. A code other than 0 is no
// error. When ctx ends, the program is killed.
func (p *Place) Run(ctx context.Context, argv ...string) (vmlab.Result, error) {
	switch {
	case p.vm == nil:
		return p.host.Run(ctx, argv...)
	case p.netns == "":
		return p.vm.Run(ctx, argv...)
	}
	return p.vm.RunIn(ctx, p.netns, argv...)
}

// Tool returns the command that runs the program of bench/guest here. A load is not
// interrupted by Go's scheduler, which would send a signal every 10 ms.
func (p *Place) Tool(args ...string) []string {
	argv := []string{p.tool}
	if args[0] == "load" {
		argv = []string{"env", "GODEBUG=asyncpreemptoff=1", p.tool}
	}
	return append(argv, args...)
}

// RunTool runs the program of bench/guest and returns what it printed. A code other
// than 0 is an error.
func (p *Place) RunTool(ctx context.Context, args ...string) (string, error) {
	res, err := p.Run(ctx, p.Tool(args...)...)
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", p.Name, strings.Join(args[:min(2, len(args))], " "), err)
	}
	return res.Stdout, nil
}

// Start starts a program and does not wait for it.
func (p *Place) Start(ctx context.Context, argv ...string) (*Proc, error) {
	proc := &Proc{what: strings.Join(argv[:min(4, len(argv))], " ") + " in " + p.Name}
	name := fmt.Sprintf("%s.%s.%d.log", filepath.Base(argv[0]), p.netns, started.Add(1))
	var err error
	if p.vm != nil {
		proc.vm, proc.log = p.vm, "/run/log/"+name
		proc.guest, err = p.vm.Start(ctx, vmlab.Command{Argv: argv, Netns: p.netns, Log: name})
	} else {
		proc.log = filepath.Join(p.dir, name)
		proc.host, err = p.startHost(proc.log, argv)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", proc.what, err)
	}
	return proc, nil
}

func (p *Place) startHost(log string, argv []string) (*vmlab.Process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own
	cmd := p.host.Command(argv...)
	cmd.Stdout, cmd.Stderr = f, f
	return vmlab.StartProcess(cmd)
}

// Proc is a program that was started in a [Place].
type Proc struct {
	what  string
	log   string // path, where the program is
	vm    *vmlab.VM
	guest *vmlab.GuestProcess
	host  *vmlab.Process
}

// PID returns the process's id where it runs.
func (p *Proc) PID() int {
	if p.guest != nil {
		return p.guest.PID
	}
	return p.host.PID()
}

// Stop has the program end by SIGTERM, and kills it when it doesn't. That it had
// ended before is an error, with the end of what it wrote. It is called once.
func (p *Proc) Stop(ctx context.Context) error {
	err := p.signal(ctx, syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) || err != nil && strings.Contains(err.Error(), syscall.ESRCH.Error()) {
		return fmt.Errorf("stop %s: it had ended: %s", p.what, p.Log())
	}
	if err == nil {
		err = p.awaitEnd(ctx)
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.what, err)
	}
	return nil
}

func (p *Proc) signal(ctx context.Context, sig syscall.Signal) error {
	if p.guest != nil {
		return p.guest.Signal(ctx, sig)
	}
	return p.host.Signal(sig)
}

// awaitEnd waits for the end for some time, and brings it about then.
func (p *Proc) awaitEnd(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if p.guest != nil {
		if _, err := p.guest.Wait(short); err == nil || ctx.Err() != nil {
			return err
		}
		return p.guest.Kill(ctx)
	}
	select {
	case <-p.host.Done():
	case <-short.Done():
		p.host.Kill()
	}
	return ctx.Err()
}

// Log returns what the program has written so far, or why that can't be told.
//
//nolint:contextcheck,nolintlint // it is for error messages, also when the caller's context has ended
func (p *Proc) Log() string {
	ctx, cancel := context.WithTimeout(context.Background(), logLimit)
	defer cancel()
	var b []byte
	var err error
	if p.guest != nil {
		b, err = p.vm.Get(ctx, p.log)
	} else {
		b, err = os.ReadFile(p.log)
	}
	if err != nil {
		return err.Error()
	}
	return string(b)
}
