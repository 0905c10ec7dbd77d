package libvirttest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
)

//go:embed init.sh
var initScript string

const (
	startLimit = 60 * time.Second // a first start looks at the machine's QEMU, which takes seconds
	killLimit  = 10 * time.Second
)

// ErrMissing is returned when libvirt isn't installed.
var ErrMissing = errors.New("libvirtd is missing; scripts/deps installs it")

// Options say how a libvirtd is started. The zero value is ready to use.
type Options struct {
	// NS is the network namespace that libvirtd and its QEMUs are in, and so where
	// they look for taps. It stays the caller's. Default: that of the program.
	NS *netnsx.NS
}

// Daemon is a libvirtd. Its methods may be called by several goroutines, but Close
// comes after all others.
type Daemon struct {
	dir   string
	init  *exec.Cmd
	ended chan struct{} // closed when all processes have ended
	mu    sync.Mutex    // held while libvirtd is started or killed
}

// Start starts a libvirtd and returns when it answers. Close it.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, name := range []string{"libvirtd", "virsh", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	dir, err := makeFolder()
	if err != nil {
		return nil, fmt.Errorf("start libvirtd: %w", err)
	}
	d := &Daemon{dir: dir, ended: make(chan struct{})}
	if err := d.enter(ctx, o.NS); err != nil {
		return nil, errors.Join(fmt.Errorf("start libvirtd: %w", err), os.RemoveAll(dir))
	}
	if err := d.Restart(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// enter starts the first process of the daemon's namespaces and returns when
// they are as they shall be.
func (d *Daemon) enter(ctx context.Context, ns *netnsx.NS) error {
	argv := []string{"sh", "-c", initScript, "init", d.dir}
	if ns != nil {
		argv = append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), ns.FD()), "--"}, argv...)
	}
	d.init = exec.Command(argv[0], argv[1:]...) //nolint:noctx // lives until Close
	d.init.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
	}
	var complaints strings.Builder
	d.init.Stderr = &complaints
	out, err := d.init.StdoutPipe()
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is about the thread that forks: keep it.
		runtime.LockOSThread()         //nolint:forbidigo // see above; no namespace is changed
		defer runtime.UnlockOSThread() //nolint:forbidigo // see above
		err := d.init.Start()
		started <- err
		if err == nil {
			_, _ = d.init.Process.Wait() // it is always killed
			close(d.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = d.init.Process.Kill() })
	defer stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		_ = d.init.Process.Kill()
		<-d.ended
		return fmt.Errorf("make its namespaces: %s: %w", complaints.String(), errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// Restart starts libvirtd again when it has ended, by Kill or by itself, and
// returns when it answers.
func (d *Daemon) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if running, err := d.answers(ctx); running || err != nil {
		return err
	}
	cmd := d.inside(ctx, "libvirtd", "--daemon", "--pid-file", "/run/libvirtd.pid")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start libvirtd: %w: %s\n%s", err, out, d.Log())
	}
	if _, err := d.Virsh(ctx, "version"); err != nil {
		return fmt.Errorf("start libvirtd: %w\n%s", err, d.Log())
	}
	return nil
}

// answers tells whether libvirtd runs. One that doesn't answer is about to end: a
// crash closes the sockets before the process is gone. The call waits for that.
func (d *Daemon) answers(ctx context.Context) (bool, error) {
	p, err := d.process()
	if errors.Is(err, os.ErrProcessDone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for libvirtd: %w", err)
	}
	defer p.close()
	_, silent := d.Virsh(ctx, "version")
	if silent == nil {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	if err := p.await(ctx); err != nil {
		return false, fmt.Errorf("libvirtd runs, but doesn't answer: %w: %w\n%s", silent, err, d.Log())
	}
	return false, nil
}

// inside returns a command that runs in the daemon's namespaces.
func (d *Daemon) inside(ctx context.Context, argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(d.init.Process.Pid), "--mount", "--pid", "--net", "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
}

// Kill ends libvirtd as kill -9 does, and waits until it is gone. The domains go on.
// A [Daemon.Keep] starts it again.
func (d *Daemon) Kill(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	pid, err := d.PID()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill libvirtd: %w", err)
	}
	return killAndWait(ctx, pid)
}

// Close ends libvirtd and all domains, and removes all that they left.
func (d *Daemon) Close() error {
	_ = d.init.Process.Kill() // the kernel then kills all of the namespace
	select {
	case <-d.ended:
	case <-time.After(killLimit):
		return fmt.Errorf("close libvirtd: its processes did not end within %v", killLimit)
	}
	return os.RemoveAll(d.dir)
}

// Socket is the path of the daemon's socket.
func (d *Daemon) Socket() string { return filepath.Join(d.dir, "run/libvirt/libvirt-sock") }

// URI is what virsh connects to.
func (d *Daemon) URI() string { return "qemu+unix:///system?socket=" + d.Socket() }

// Address is what `brfuse vm add --libvirt` takes for a domain.
func (d *Daemon) Address(domain string) string {
	return "qemu+unix:///system/" + domain + "?socket=" + d.Socket()
}

// Log returns the end of what libvirtd logged, and whether it has ended.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(filepath.Join(d.dir, "log/libvirt/libvirtd.log"))
	if err != nil {
		return err.Error()
	}
	state := ""
	if _, err := d.filePID("libvirtd.pid"); err != nil {
		state = fmt.Sprintf("\nlibvirtd does not run: %v", err)
	}
	return string(b[max(0, len(b)-logTail):]) + state
}

const logTail = 4000 // bytes
