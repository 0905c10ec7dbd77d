package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/nettopo"
)

// benched are two guests with NICs of their own on a common wire, and a network.
type benched struct {
	*site.Site
	vms    []*vmlab.VM
	agents []*vmlab.GuestProcess
	before []string // what each guest has
}

// newBenched returns two guests. The wire is a pair of QEMU's sockets, which needs
// nothing of the host.
func newBenched(t *testing.T) (context.Context, *benched) {
	t.Helper()
	ctx, s := newSite(t, site.Options{Image: vmlab.Image{Modules: nettopo.Modules(), Programs: []string{"/usr/sbin/nft"}}})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	b := &benched{Site: s}
	for i, peer := range []int{2, 1} {
		n := i + 1
		vm, err := s.BootConfig(ctx, vmlab.Config{Name: fmt.Sprintf("vm%d", n), ExtraArgs: []string{
			"-netdev", fmt.Sprintf("dgram,id=own,local.type=unix,local.path=%[1]s/w%[2]d,remote.type=unix,remote.path=%[1]s/w%[3]d", s.Dir, n, peer),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=own,bus=pcie.0,addr=0x1b,mac=02:00:5e:00:53:%02x", n),
		}})
		require.NoError(t, err)
		inGuest(ctx, t, vm, "", "ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", n), "dev", "eth0")
		inGuest(ctx, t, vm, "", "ip", "link", "set", "eth0", "up")
		require.NoError(t, s.AddVM(ctx, vm))
		agent, err := vm.Find(ctx, filepath.Base(site.AgentPath))
		require.NoError(t, err)
		b.vms, b.agents = append(b.vms, vm), append(b.agents, agent)
	}
	t.Cleanup(func() {
		for _, vm := range b.vms {
			if t.Failed() {
				log, err := vm.Get(context.Background(), "/run/log/brfuse-agent.log")
				t.Logf("%s: agent's log (%v):\n%s", vm.Name(), err, log)
			}
		}
	})
	for _, vm := range b.vms {
		state, err := guestState(ctx, vm)
		require.NoError(t, err)
		b.before = append(b.before, state)
	}
	return ctx, b
}

// guestState is what a bench must leave as it was. That a NIC has its carrier, the
// kernel tells a little after the NIC is up.
func guestState(ctx context.Context, vm *vmlab.VM) (string, error) {
	res, err := vm.RunIn(ctx, "", "sh", "-c", `set -e
ip -o link | sed 's/ state .*//; s/<NO-CARRIER,/</'
ip -4 route
nft list ruleset
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth0/forwarding
ls /run/brfuse
echo $(pidof brfuse-agent | wc -w) processes
for p in /proc/[0-9]*; do readlink $p/ns/net || true; done | sort -u`)
	return res.Stdout, errors.Join(err, res.Err())
}

// assertClean waits until nothing is left on the host, and looks at the guests.
func (b *benched) assertClean(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit/10)
	defer cancel()
	for i, vm := range b.vms {
		last := site.Truths{}
		assert.NoError(t, site.Until(ctx, "nothing left of a bench of "+vm.Name(), func(ctx context.Context) (bool, error) {
			tr, err := b.LookAround(ctx, vm)
			last = tr
			return tr.String() == site.Truths{MACs: 1}.String(), err // its own NIC
		}), "%s", last)
		state := ""
		assert.NoError(t, site.Until(ctx, "the state of before in "+vm.Name(), func(ctx context.Context) (bool, error) {
			now, err := guestState(ctx, vm)
			if err != nil {
				return false, err
			}
			state = now
			return state == b.before[i], nil
		}), "it was\n%s\nand is\n%s", b.before[i], state)
	}
	assert.Contains(t, run(ctx, t, b.Site, "gc", "--dry-run"), "nothing to remove")
}

// start begins a long bench and returns when it measures a topology, with what
// awaits its end and returns its stderr.
func (b *benched) start(t *testing.T, topology string) (p *vmlab.Process, end func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := b.Net.Command(b.BrfusePath(), "--socket", b.Socket(), "bench", "--vm", "vm1", "--peer", "vm2",
		"--topologies", topology, "--workloads", "tcp_rr/64", "--time", "30s")
	cmd.Stderr = w
	p, err = vmlab.StartProcess(cmd)
	require.NoError(t, w.Close())
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	said := make(chan string)
	go func() {
		defer close(said)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	end = func() string {
		var all strings.Builder
		for line := range said {
			all.WriteString(line + "\n")
		}
		<-p.Done()
		return all.String()
	}
	for line := range said {
		if strings.Contains(line, topology+", tcp_rr/64") {
			return p, end
		}
	}
	require.FailNow(t, "bench ended early")
	return nil, nil
}

// TestIntegrationBench measures two guests as a user does, and finds all as before:
// after a whole bench, and after one during which the command line is interrupted, an
// agent killed, and the daemon killed.
func TestIntegrationBench(t *testing.T) {
	ctx, b := newBenched(t)
	file := filepath.Join(t.TempDir(), "samples.jsonl")
	var out struct {
		NativeAddress string `json:"nativeAddress"`
		Samples       []struct {
			Topology, Workload string
			Metrics            map[string]float64
		}
		Ratios []struct {
			Topology, Workload, Metric string
			Value                      float64
		}
	}
	require.NoError(t, b.BrfuseJSON(ctx, &out, "bench", "--vm", "vm1", "--peer", "vm2", "--rounds", "1", "--time", "200ms", "--samples", file))
	assert.Equal(t, "192.0.2.1", out.NativeAddress)
	assert.NotEmpty(t, out.Ratios)
	t.Logf("ratios to native, of one short round: %v", out.Ratios)
	seen := map[string]bool{}
	for _, s := range out.Samples {
		seen[s.Topology+" "+s.Workload] = true
		assert.Positive(t, s.Metrics["msg/s"], "%v", s)
		assert.Positive(t, s.Metrics["B/s"], "%v", s)
		assert.Contains(t, s.Metrics, "guest-cpu")
	}
	assert.Len(t, seen, 9, "three topologies with three workloads: %v", seen)
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, 9, bytes.Count(raw, []byte("\n")))
	assert.True(t, json.Valid(bytes.Split(raw, []byte("\n"))[0]))
	b.assertClean(ctx, t)

	for _, topology := range []string{"nat", "fused"} {
		t.Run("interrupted in "+topology, func(t *testing.T) {
			p, end := b.start(t, topology)
			res, err := b.Brfuse(ctx, "bench", "--vm", "vm2", "--peer", "vm1")
			require.NoError(t, err)
			assert.Contains(t, res.Stderr, "is being measured by another bench")
			require.NoError(t, p.Signal(syscall.SIGINT))
			assert.Contains(t, end(), "brfuse: ")
			b.assertClean(ctx, t)
		})
		t.Run("agent killed in "+topology, func(t *testing.T) {
			_, end := b.start(t, topology)
			require.NoError(t, b.agents[0].Kill(ctx))
			assert.Contains(t, end(), "brfuse: ")
			agent, err := b.vms[0].Start(ctx, vmlab.Command{Argv: []string{site.AgentPath}})
			require.NoError(t, err)
			b.agents[0] = agent
			require.NoError(t, b.AwaitAgent(ctx, "vm1"))
			b.assertClean(ctx, t)
		})
		t.Run("daemon killed in "+topology, func(t *testing.T) {
			_, end := b.start(t, topology)
			b.KillDaemon()
			end()
			require.NoError(t, b.StartDaemon(ctx))
			for _, vm := range b.vms {
				require.NoError(t, b.AwaitAgent(ctx, vm.Name()))
			}
			b.assertClean(ctx, t)
		})
	}
}
