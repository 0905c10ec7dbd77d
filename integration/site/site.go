// Package site puts a hypervisor together for tests, benchmarks and the demo: a
// network namespace with brfused in it, guests with brfuse-agent, and the
// command line.
package site

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/libvirttest"
)

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
	// Libvirt has the guests run as domains of a libvirtd in the site's namespace.
	// Default: what [HypervisorEnv] says, or QEMU by itself.
	Libvirt bool
	// AgentByHand leaves it to the test to start the agent in its guests.
	AgentByHand bool
	// DaemonArgs are further arguments of the daemon.
	DaemonArgs []string
	// Resolv is a file that the daemon finds as its /etc/resolv.conf. Default: this
	// machine's own.
	Resolv string
}

// Site is a hypervisor. It is safe for concurrent use, but for starting and
// stopping the daemon.
type Site struct {
	Lab *vmlab.Lab
	Net *vmlab.NetNS
	Dir string
	// DaemonArgs are further arguments of the daemon's next start.
	DaemonArgs []string

	brfused, brfuse, initrd, logLevel string
	resolv                            string
	daemon                            *daemon
	libvirt                           *libvirttest.Daemon

	mu   sync.Mutex // guards what is below
	conn *grpc.ClientConn
	vms  []*vmlab.VM
}

// New builds the programs and the guests' image, and makes the namespace.
func New(ctx context.Context, lab *vmlab.Lab, o Options) (s *Site, err error) {
	s = &Site{Lab: lab, Dir: o.Dir, logLevel: cmp.Or(o.LogLevel, "debug"), DaemonArgs: o.DaemonArgs, resolv: o.Resolv}
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
	libvirt, err := wantsLibvirt(o)
	if err == nil && libvirt {
		s.libvirt, err = libvirttest.Start(ctx, libvirttest.Options{NS: s.Net.NS()})
	}
	if err != nil {
		return nil, errors.Join(err, s.Net.Close())
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

// Boot boots a guest with slots for that many vNICs.
func (s *Site) Boot(ctx context.Context, name string, vnics int) (*vmlab.VM, error) {
	return s.BootConfig(ctx, vmlab.Config{Name: name, VNICs: vnics})
}

// BootConfig boots a guest; folder and image are the site's.
func (s *Site) BootConfig(ctx context.Context, cfg vmlab.Config) (*vmlab.VM, error) {
	cfg.Dir, cfg.Initrd = s.Dir, s.initrd
	if s.libvirt != nil {
		cfg.Libvirt = domains{s.libvirt}
	}
	vm, err := s.Lab.Boot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vms = append(s.vms, vm)
	return vm, nil
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
	if s.libvirt != nil {
		errs = append(errs, s.libvirt.Close())
	}
	if s.Net != nil {
		errs = append(errs, s.Net.Close())
	}
	return errors.Join(errs...)
}
