package netpath

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// netns is a network namespace without a name, its loopback up, that lasts as long as
// its test.
type netns struct {
	*netnsx.NS
	t testing.TB
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	n := &netns{ns, t}
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// path is one by which the namespace is opened, by this process.
func (n *netns) path() string { return fmt.Sprintf("/proc/self/fd/%d", n.FD()) }

// run runs a program in the namespace.
func (n *netns) run(name string, args ...string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	var out []byte
	err := n.Do(func() (err error) {
		out, err = exec.CommandContext(ctx, name, args...).CombinedOutput()
		return err
	})
	require.NoError(n.t, err, "%s %s: %s", name, strings.Join(args, " "), out)
}

// script runs lines of words, one program each.
func (n *netns) script(lines string) {
	n.t.Helper()
	for line := range strings.Lines(lines) {
		if f := strings.Fields(line); len(f) > 0 {
			n.run(f[0], f[1:]...)
		}
	}
}

// give moves a link of n to another namespace, with its name there.
func (n *netns) give(to *netns, link, name string) {
	n.t.Helper()
	n.run("ip", "link", "set", link, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), to.FD()), "name", name)
}

// hold keeps a process in the namespace, so that others find it, as a container does.
func (n *netns) hold() {
	n.t.Helper()
	var cmd *exec.Cmd
	require.NoError(n.t, n.Do(func() error {
		cmd = exec.CommandContext(n.t.Context(), "sleep", "300")
		return cmd.Start()
	}))
	n.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// nft loads a ruleset.
func (n *netns) nft(rules string) {
	n.t.Helper()
	var out []byte
	err := n.Do(func() (err error) {
		c := exec.CommandContext(n.t.Context(), "nft", "-f", "-")
		c.Stdin = strings.NewReader(rules)
		out, err = c.CombinedOutput()
		return err
	})
	require.NoError(n.t, err, "%s", out)
}

// walkIn walks from a namespace that is the walker's own.
func walkIn(t *testing.T, own *netns, o Options) Path {
	t.Helper()
	var p Path
	own.within(func() (err error) {
		p, err = Local(t.Context(), o)
		return err
	})
	return p
}

func (n *netns) within(f func() error) {
	n.t.Helper()
	require.NoError(n.t, n.Do(f))
}

// brief is a path's hops, a line each: the namespace's index and what it is.
func brief(p Path) string {
	var b strings.Builder
	for _, h := range p.Hops {
		fmt.Fprintf(&b, "%d ", h.Namespace)
		switch {
		case h.Device != nil:
			fmt.Fprintf(&b, "%s %s", h.Device.Kind, h.Device.Name)
		case h.Route != nil:
			fmt.Fprintf(&b, "route %s by %s", h.Route.To, h.Route.Device)
			if h.Route.Gateway.IsValid() {
				fmt.Fprintf(&b, " via %s", h.Route.Gateway)
			}
		case h.Hook != nil:
			fmt.Fprintf(&b, "%s", h.Hook.Name)
			if h.Hook.Bridge {
				b.WriteString(" bridge")
			}
			for _, c := range h.Hook.Chains {
				fmt.Fprintf(&b, " %s/%s/%s", c.Family, c.Table, c.Name)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
