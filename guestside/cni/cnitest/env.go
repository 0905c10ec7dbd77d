package cnitest

import (
	"context"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
)

// Names of the programs in Env.Dir.
const (
	Brfuse = "brfuse"   // cmd/brfuse-cni
	Helper = "testipam" // testplugin, as an IPAM plugin
	Chain  = "testtune" // the same, as one that comes later in a chain
)

// Env is where the table runs: the place of the plugin, the agent and the pods.
// All fields are required. The functions are called one at a time.
type Env struct {
	// Exec runs plugins there, in the VM's first network namespace. See [ShellExec].
	Exec invoke.Exec
	// Dir is the folder of the programs there.
	Dir string
	// State is an empty folder there, for the test's IPAM plugin.
	State string
	// Socket is the agent's.
	Socket string
	// Network is a brfuse network with one IPv4 subnet and one IPv6 subnet, whose
	// gateways are their first addresses. The table takes addresses from 100 on.
	Network Network
	// Second is another.
	Second Network

	// AddNetns makes a named network namespace and returns its path.
	AddNetns func(ctx context.Context, name string) (path string, err error)
	// DelNetns removes it.
	DelNetns func(ctx context.Context, name string) error
	// IP runs ip(8) with these arguments in a named network namespace.
	IP func(ctx context.Context, netns string, args ...string) (string, error)
	// Shell runs a script there and returns what it writes.
	Shell func(ctx context.Context, script string) (string, error)

	// StopAgent stops the agent, StartAgent starts it again and waits until it is
	// usable. The same with the host's daemon.
	StopAgent, StartAgent, StopHost, StartHost func(ctx context.Context) error
	// Exhaust uses up all slots or addresses. The returned function undoes it.
	Exhaust func(ctx context.Context) (restore func(ctx context.Context) error, err error)
	// Attachments returns those that the host has, each as "container/interface".
	Attachments func(ctx context.Context) ([]string, error)
}

// Network is a brfuse network.
type Network struct {
	Name   string
	V4, V6 netip.Prefix
}

// at returns the n-th address of a subnet.
func at(p netip.Prefix, n byte) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1] = n
	a, _ := netip.AddrFromSlice(b)
	return a
}
