// Package netnstest gives tests network namespaces of their own.
package netnstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// NS is a new network namespace, its loopback up, that lasts as long as its test.
type NS struct {
	*netnsx.NS
	t testing.TB
}

// New returns a namespace. Without root the test is skipped, and fails where
// the environment has CI.
func New(tb testing.TB) *NS {
	tb.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			tb.Fatal("this test needs root")
		}
		tb.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(tb, err)
	tb.Cleanup(func() {
		if err := ns.Close(); err != nil {
			tb.Errorf("close namespace: %v", err)
		}
	})
	n := &NS{NS: ns, t: tb}
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// In runs f in the namespace and fails the test at its error.
func (n *NS) In(f func() error) {
	n.t.Helper()
	require.NoError(n.t, n.Do(f))
}

// Run runs a program in the namespace and returns what it prints.
func (n *NS) Run(name string, args ...string) string {
	n.t.Helper()
	var out []byte
	err := n.Do(func() error {
		var err error
		out, err = exec.CommandContext(n.t.Context(), name, args...).CombinedOutput()
		return err
	})
	require.NoError(n.t, err, "%s %s: %s", name, strings.Join(args, " "), out)
	return string(out)
}

// State returns the namespace's links, with their MACs, and its nftables tables
// as text: what must be as before when a test has cleaned up.
func (n *NS) State() string {
	n.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(n.Run("ip", "-br", "link")) {
		if f := strings.Fields(line); len(f) > 2 {
			b.WriteString("link " + f[0] + " " + f[2] + "\n")
		}
	}
	b.WriteString(n.Run("nft", "list", "tables"))
	return b.String()
}
