package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// fails runs brfuse, which has to fail with a code and a text.
func fails(ctx context.Context, t *testing.T, s *site.Site, code, text string, args ...string) {
	t.Helper()
	res, err := s.Brfuse(ctx, append(args, "-o", "json")...)
	require.NoError(t, err)
	assert.NotEqual(t, 0, res.Code, "%v", args)
	assert.Contains(t, res.Stderr, fmt.Sprintf(`"code":%q`, code), "%v", args)
	assert.Regexp(t, text, res.Stderr, "%v", args)
}

// TestIntegrationErrors has what can go wrong go wrong, looks at code and text,
// and that nothing is left by it.
func TestIntegrationErrors(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "web", "db")
	add := []string{"attach", "--vm", "vm1", "--pod"}
	fails(ctx, t, s, "unknown_vm", "vm9", "attach", "--vm", "vm9", "--pod", "web")
	fails(ctx, t, s, "unknown_pod", "nope.*ip netns list.*absolute path", append(add, "nope")...)
	fails(ctx, t, s, "unknown_pod", "99999", append(add, "web", "--netns", "99999")...)
	fails(ctx, t, s, "unknown_network", "red", append(add, "web", "--network", "red")...)
	fails(ctx, t, s, "address_outside", "10.1.1.1.*10.231.0.0/24", append(add, "web", "--ip", "10.1.1.1")...)
	fails(ctx, t, s, "usage", "unknown flag", append(add, "web", "--frobnicate")...)
	assertNothingLeft(ctx, t, s, vm)

	first := attach(ctx, t, s, "--pod", "web")
	again := attach(ctx, t, s, "--pod", "web")
	assert.Equal(t, first, again, "the same again is the same attachment")
	fails(ctx, t, s, "address_taken", first.Addr(false), append(add, "db", "--ip", first.Addr(false))...)
	fails(ctx, t, s, "address_taken", first.MAC, append(add, "db", "--mac", first.MAC)...)
	fails(ctx, t, s, "conflict", "mtu", append(add, "web", "--mtu", "1400")...)
	inGuest(ctx, t, vm, "db", "sh", "-c", "ip link set lo down && ip link set lo name eth7")
	fails(ctx, t, s, "name_taken", "eth7.*choose another name", append(add, "db", "--ifname", "eth7")...)
	assert.Len(t, settled(ctx, t, s, vm).Store, 1)
	run(ctx, t, s, "detach", "--pod", "web")
	assert.Contains(t, run(ctx, t, s, "detach", "--pod", "web"), "nothing to detach")

	// An agent that is silent: stopped, not dead, so that its session stands.
	agent, err := vm.Find(ctx, "brfuse-agent")
	require.NoError(t, err)
	require.NoError(t, agent.Signal(ctx, syscall.SIGSTOP))
	fails(ctx, t, s, "agent_unavailable", "phase leased: prepare: .*vm1", append(add, "web")...)
	require.NoError(t, agent.Signal(ctx, syscall.SIGCONT))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	settled(ctx, t, s, vm)
	attach(ctx, t, s, "--pod", "web")
	run(ctx, t, s, "detach", "--pod", "web")

	// An agent that is dead.
	require.NoError(t, agent.Kill(ctx))
	fails(ctx, t, s, "agent_unavailable", "the session ended|no answer in time", append(add, "web")...)
	require.NoError(t, site.Until(ctx, "the end of the dead agent's session", func(ctx context.Context) (bool, error) {
		out, err := s.MustBrfuse(ctx, "vm", "list")
		return strings.Contains(out, "absent"), err
	}))
	fails(ctx, t, s, "agent_unavailable", "is brfuse-agent running in the guest", append(add, "web")...)
	settled(ctx, t, s, vm)
	startAgent(ctx, t, s, vm)

	// A guest that never shows the NIC: its driver is unbound from new devices.
	inGuest(ctx, t, vm, "", "sh", "-c", "echo 0 > /sys/bus/virtio/drivers_autoprobe")
	fails(ctx, t, s, "nic_missing", "phase plugged: .*virtio_net", append(add, "web")...)
	settled(ctx, t, s, vm)
	inGuest(ctx, t, vm, "", "sh", "-c", "echo 1 > /sys/bus/virtio/drivers_autoprobe")
	assertNothingLeft(ctx, t, s, vm)

	vm.Kill()
	require.NoError(t, site.Until(ctx, "vm1 to be gone", func(ctx context.Context) (bool, error) {
		out, err := s.MustBrfuse(ctx, "vm", "list")
		return strings.Contains(out, "gone"), err
	}))
	fails(ctx, t, s, "vm_gone", "vm1.*start the vm", append(add, "web")...)
}

// startAgent starts an agent in the guest, and waits for its session.
func startAgent(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, env ...string) *vmlab.GuestProcess {
	t.Helper()
	p, err := vm.Start(ctx, vmlab.Command{Argv: []string{site.AgentPath}, Env: env})
	require.NoError(t, err)
	require.NoError(t, s.AwaitAgent(ctx, vm.Name()))
	return p
}

// TestIntegrationSlots fills a guest with few slots.
func TestIntegrationSlots(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	run(ctx, t, s, "network", "create", "blue", "--subnet", "10.231.0.0/24")
	vm, err := s.Boot(ctx, "vm1", 31)
	require.NoError(t, err)
	_, err = vm.AddPod(ctx, "web")
	require.NoError(t, err)
	require.NoError(t, s.AddVM(ctx, vm))
	var n int
	for ; n < 64; n++ {
		res, err := s.Brfuse(ctx, "attach", "--vm", "vm1", "--pod", "web", "--ifname", fmt.Sprintf("eth%d", n), "--no-default-route")
		require.NoError(t, err)
		if res.Code != 0 {
			break
		}
	}
	fails(ctx, t, s, "no_slot", fmt.Sprintf("%d of %d in use.*brfuse topology", n, n), "attach", "--vm", "vm1", "--pod", "web", "--ifname", "last")
	assert.GreaterOrEqual(t, n, 31)
	assert.Len(t, settled(ctx, t, s, vm).Store, n)
	run(ctx, t, s, "detach", "--pod", "web")
	assertNothingLeft(ctx, t, s, vm)
	attach(ctx, t, s, "--pod", "web")
}

// TestIntegrationSocketPermission runs the command line as a user without
// rights.
func TestIntegrationSocketPermission(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	require.NoError(t, os.Chmod(s.Dir, 0o711))
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o711))
	}
	prog := filepath.Join(dir, "brfuse")
	raw := readFile(t, s.BrfusePath())
	require.NoError(t, os.WriteFile(prog, []byte(raw), 0o755))
	cmd := exec.CommandContext(ctx, prog, "--socket", s.Socket(), "list")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "no permission for "+s.Socket()+": run as root")
}
