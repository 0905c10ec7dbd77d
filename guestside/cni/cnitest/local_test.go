package cnitest_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/cni/cnitest"
	"github.com/brfuse/brfuse/guestside/cnid"
	"github.com/brfuse/brfuse/guestside/internal/standin"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// place is a guest in network namespaces of this machine: the VM's first one has
// an agent and the front door, another is the hypervisor's.
type place struct {
	t      *testing.T
	home   *netnsx.NS
	host   *fakeHost
	socket string
	dir    string // of the programs

	agent *guestside.Agent
	stop  func() error // the front door
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func newNS(t *testing.T) *netnsx.NS {
	t.Helper()
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return ns
}

// newPlace builds the programs and starts a place.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, home: newNS(t), dir: t.TempDir(), socket: filepath.Join(t.TempDir(), "cni.sock")}
	p.host = newFakeHost(p.home, newNS(t))
	build(t, filepath.Join(p.dir, cnitest.Brfuse), "github.com/brfuse/brfuse/cmd/brfuse-cni")
	build(t, filepath.Join(p.dir, cnitest.Helper), "./testplugin")
	require.NoError(t, os.Link(filepath.Join(p.dir, cnitest.Helper), filepath.Join(p.dir, cnitest.Chain)))
	require.NoError(t, p.start(t.Context()))
	t.Cleanup(func() { assert.NoError(t, p.halt(context.WithoutCancel(t.Context()))) })
	return p
}

// build builds a static program as it is released.
func build(t *testing.T, file, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "build %s: %s", pkg, out)
}

// start starts the agent and its front door.
func (p *place) start(ctx context.Context) error {
	err := p.home.Do(func() (err error) {
		p.agent, err = guestside.New(guestside.Config{
			SearchAfter: 50 * time.Millisecond, CarrierWait: 50 * time.Millisecond, ReturnWait: 50 * time.Millisecond,
		}, standin.Kind("veth"))
		return err
	})
	if err != nil {
		return err
	}
	p.host.agent = p.agent
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cnid.New(cnid.Config{Socket: p.socket, Host: p.host, Agent: p.agent}).Serve(ctx) // it ends with ctx
	}()
	p.stop = sync.OnceValue(func() error {
		cancel()
		<-done
		return p.agent.Close()
	})
	return until(ctx, "the front door listens", func() bool {
		_, err := os.Stat(p.socket)
		return err == nil
	})
}

func (p *place) halt(context.Context) error { return p.stop() }

// until waits for a condition that nothing tells of.
func until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await that %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// env returns the place as the table wants it.
func (p *place) env() cnitest.Env {
	return cnitest.Env{
		Exec:   inside{p.home, &invoke.RawExec{Stderr: p.t.Output()}, &version.PluginDecoder{}},
		Dir:    p.dir,
		State:  p.t.TempDir(),
		Socket: p.socket,
		Network: cnitest.Network{
			Name: "blue", V4: netip.MustParsePrefix("10.99.1.0/24"), V6: netip.MustParsePrefix("fd99:1::/64"),
		},
		Second: cnitest.Network{
			Name: "red", V4: netip.MustParsePrefix("10.99.2.0/24"), V6: netip.MustParsePrefix("fd99:2::/64"),
		},
		AddNetns: func(ctx context.Context, name string) (string, error) {
			_, err := command(ctx, "ip", "netns", "add", name)
			return filepath.Join(netnsx.Dir, name), err
		},
		DelNetns: func(ctx context.Context, name string) error {
			_, err := command(ctx, "ip", "netns", "del", name)
			return err
		},
		IP: func(ctx context.Context, netns string, args ...string) (string, error) {
			return command(ctx, "ip", append([]string{"-n", netns}, args...)...)
		},
		Shell: func(ctx context.Context, script string) (string, error) {
			return command(ctx, "/bin/sh", "-c", script)
		},
		StartAgent: p.start, StopAgent: p.halt,
		StartHost:   func(context.Context) error { p.host.SetAway(false); return nil },
		StopHost:    func(context.Context) error { p.host.SetAway(true); return nil },
		Exhaust:     p.host.exhaust,
		Attachments: p.host.list,
	}
}

// inside runs plugins in the VM's first namespace.
type inside struct {
	home *netnsx.NS
	*invoke.RawExec
	*version.PluginDecoder
}

// ExecPlugin implements invoke.Exec.
func (i inside) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (out []byte, err error) {
	err = i.home.Do(func() (err error) {
		out, err = i.RawExec.ExecPlugin(ctx, path, stdin, environ)
		return err
	})
	return out, err
}

func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// TestIntegrationTable runs the table on this machine.
func TestIntegrationTable(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	cnitest.Run(t, p.env())
	assert.Empty(t, p.links(), "nothing is left in the vm's first namespace")
}

// links returns the vNICs in the VM's first namespace.
func (p *place) links() []vnic.NIC {
	nics, err := p.agent.NICs(p.t.Context())
	require.NoError(p.t, err)
	return nics
}
