// Package site puts a hypervisor together for tests, benchmarks and the demo: a
// network namespace with brfused in it, guests with brfuse-agent, and the
// command line.
package site

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/failpoint"
)

// startLimit bounds how long a daemon may take until it serves.
const startLimit = 30 * time.Second

// Options say what a site is made of.
type Options struct {
	// Dir is an empty folder with a short path. Required.
	Dir string
	// Failpoints has daemon and agent built with failpoints.
	Failpoints bool
	// LogLevel is the daemon's. Default: debug.
	LogLevel string
	// Race has the daemon built with the race detector.
	Race bool
	// Image is what the guests have beside the agent.
	Image vmlab.Image
	// AgentByHand leaves it to the test to start the agent in its guests.
	AgentByHand bool
}

// Site is a hypervisor. It is safe for concurrent use, but for starting and
// stopping the daemon.
type Site struct {
	Lab *vmlab.Lab
	Net *vmlab.NetNS
	Dir string

	brfused, brfuse, initrd, logLevel string
	daemon                            *daemon

	mu   sync.Mutex // guards what is below
	conn *grpc.ClientConn
	vms  []*vmlab.VM
}

// daemon is a running brfused.
type daemon struct {
	proc *vmlab.Process
	log  *os.File
}

// New builds the programs and the guests' image, and makes the namespace.
func New(ctx context.Context, lab *vmlab.Lab, o Options) (s *Site, err error) {
	s = &Site{Lab: lab, Dir: o.Dir, logLevel: cmp.Or(o.LogLevel, "debug")}
	var tags []string
	if o.Failpoints {
		tags = append(tags, "failpoints")
	}
	build := lab.GoBuild
	if o.Race {
		build = lab.GoBuildRace
	}
	if s.brfused, err = build(ctx, "./cmd/brfused", tags...); err != nil {
		return nil, err
	}
	if s.brfuse, err = lab.GoBuild(ctx, "./cmd/brfuse"); err != nil {
		return nil, err
	}
	agent, err := lab.GoBuild(ctx, "./cmd/brfuse-agent", tags...)
	if err != nil {
		return nil, err
	}
	img := o.Image
	files := map[string]string{AgentPath: agent}
	maps.Copy(files, img.Files)
	img.Files = files
	if !o.AgentByHand {
		img.Start = append([][]string{{AgentPath}}, img.Start...)
	}
	if s.initrd, err = lab.Build(ctx, filepath.Join(o.Dir, "initrd"), img); err != nil {
		return nil, err
	}
	if s.Net, err = vmlab.NewNetNS(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// AgentPath is where guests have the agent.
const AgentPath = "/sbin/brfuse-agent"

// Socket is the path of the daemon's API.
func (s *Site) Socket() string { return filepath.Join(s.Dir, "brfused.sock") }

// BrfusePath is the path of the command line's program.
func (s *Site) BrfusePath() string { return s.brfuse }

// State is the path of the daemon's database.
func (s *Site) State() string { return filepath.Join(s.Dir, "brfuse.db") }

// DaemonLog is the path of the daemon's log.
func (s *Site) DaemonLog() string { return filepath.Join(s.Dir, "brfused.log") }

// StartDaemon starts brfused with some failpoints and returns when it serves.
func (s *Site) StartDaemon(ctx context.Context, failpoints ...string) error {
	log, err := os.OpenFile(s.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := s.Net.Command(s.brfused, "--socket", s.Socket(), "--state", s.State(), "--log-level", s.logLevel)
	cmd.Env = append(os.Environ(), failpoint.Env+"="+strings.Join(failpoints, ","))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, w
	proc, err := vmlab.StartProcess(cmd)
	_ = w.Close() // the daemon has its own
	if err != nil {
		return errors.Join(err, r.Close(), log.Close())
	}
	serving := make(chan struct{})
	go follow(r, log, serving)
	s.daemon = &daemon{proc: proc, log: log}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-serving:
		return nil
	case <-proc.Done():
		return fmt.Errorf("brfused ended before it served: %w: %s", proc.Err(), s.LogTail())
	case <-ctx.Done():
		s.KillDaemon()
		return fmt.Errorf("await brfused to serve: %w: %s", ctx.Err(), s.LogTail())
	}
}

// follow copies the daemon's log, to its end since a daemon that can't log dies,
// and tells when it serves.
func follow(r io.ReadCloser, log io.Writer, serving chan<- struct{}) {
	defer r.Close()
	told := false
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		fmt.Fprint(log, line)
		if !told && strings.Contains(line, "msg=serving") {
			told = true
			close(serving)
		}
		if err != nil {
			return
		}
	}
}

// LogTail returns the end of the daemon's log.
func (s *Site) LogTail() string {
	raw, err := os.ReadFile(s.DaemonLog())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-8000):])
}

// DaemonPID returns the process id of the daemon.
func (s *Site) DaemonPID() int { return s.daemon.proc.PID() }

// DaemonDone is closed when the daemon has ended.
func (s *Site) DaemonDone() <-chan struct{} { return s.daemon.proc.Done() }

// KillDaemon kills the daemon as kill -9 does, if it runs.
func (s *Site) KillDaemon() {
	s.mu.Lock()
	if s.conn != nil {
		_ = s.conn.Close() // the next client makes a new one
		s.conn = nil
	}
	s.mu.Unlock()
	if s.daemon != nil {
		s.daemon.proc.Kill()
		_ = s.daemon.log.Close() // what was logged is written
		s.daemon = nil
	}
}

// StopDaemon ends the daemon in good order.
func (s *Site) StopDaemon(ctx context.Context) error {
	if err := s.daemon.proc.Signal(os.Interrupt); err != nil {
		return err
	}
	select {
	case <-s.daemon.proc.Done():
	case <-ctx.Done():
		return fmt.Errorf("await the end of brfused: %w", ctx.Err())
	}
	err := s.daemon.proc.Err()
	s.KillDaemon()
	return err
}

// Boot boots a guest with slots for that many vNICs.
func (s *Site) Boot(ctx context.Context, name string, vnics int) (*vmlab.VM, error) {
	return s.BootConfig(ctx, vmlab.Config{Name: name, VNICs: vnics})
}

// BootConfig boots a guest; folder and image are the site's.
func (s *Site) BootConfig(ctx context.Context, cfg vmlab.Config) (*vmlab.VM, error) {
	cfg.Dir, cfg.Initrd = s.Dir, s.initrd
	vm, err := s.Lab.Boot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vms = append(s.vms, vm)
	return vm, nil
}

// Brfuse runs the command line. A code other than 0 is no error.
func (s *Site) Brfuse(ctx context.Context, args ...string) (vmlab.Result, error) {
	return s.Net.Run(ctx, append([]string{s.brfuse, "--socket", s.Socket()}, args...)...)
}

// MustBrfuse runs the command line and returns its output; a code other than 0
// is an error.
func (s *Site) MustBrfuse(ctx context.Context, args ...string) (string, error) {
	res, err := s.Brfuse(ctx, args...)
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return res.Stdout, fmt.Errorf("brfuse %s: %w", strings.Join(args, " "), err)
	}
	return res.Stdout, nil
}

// BrfuseJSON runs the command line with -o json and decodes its output.
func (s *Site) BrfuseJSON(ctx context.Context, v any, args ...string) error {
	out, err := s.MustBrfuse(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// Client returns a client of the daemon.
func (s *Site) Client() (brfusev1.BrfuseClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		conn, err := grpc.NewClient("passthrough:///"+s.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			}))
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	return brfusev1.NewBrfuseClient(s.conn), nil
}

// AddVM registers a guest and waits until its agent is there.
func (s *Site) AddVM(ctx context.Context, vm *vmlab.VM) error {
	ref := vm.Ref()
	if _, err := s.MustBrfuse(ctx, "vm", "add", ref.Name, "--qmp", ref.QMP, "--channel", ref.Channel); err != nil {
		return err
	}
	return s.AwaitAgent(ctx, ref.Name)
}

// AwaitAgent waits until the daemon has a session with a guest's agent.
func (s *Site) AwaitAgent(ctx context.Context, vm string) error {
	return Until(ctx, "a session with the agent of "+vm, func(ctx context.Context) (bool, error) {
		cl, err := s.Client()
		if err != nil {
			return false, err
		}
		res, err := cl.ListVMs(ctx, &brfusev1.ListVMsRequest{})
		if err != nil {
			return false, err
		}
		for _, m := range res.GetVms() {
			if m.GetName() == vm {
				return m.GetState() == "running" && m.GetAgent() == "connected", nil
			}
		}
		return false, fmt.Errorf("vm %s is not registered", vm)
	})
}

// untilStep is how often Until looks.
const untilStep = 20 * time.Millisecond

// Until waits for something that sends no event to this program. The error
// says what it waited for.
func Until(ctx context.Context, what string, there func(context.Context) (bool, error)) error {
	tick := time.NewTicker(untilStep)
	defer tick.Stop()
	var last error
	for {
		ok, err := there(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w (last error: %w)", what, ctx.Err(), errOrNone(last))
		}
	}
}

func errOrNone(err error) error {
	if err == nil {
		return errors.New("none")
	}
	return err
}

// Close ends guests and daemon, and the namespace goes with them.
func (s *Site) Close() error {
	s.KillDaemon()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, vm := range s.vms {
		errs = append(errs, vm.Close())
	}
	if s.Net != nil {
		errs = append(errs, s.Net.Close())
	}
	return errors.Join(errs...)
}
