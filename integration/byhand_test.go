package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationByHand has an operator do on the host what he should not.
func TestIntegrationByHand(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{}, "web", "db")
	web := attach(ctx, t, s, "--pod", "web")
	db := attach(ctx, t, s, "--pod", "db")
	answers := func(t *testing.T, a attachment) {
		t.Helper()
		soon, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		require.NoError(t, site.Until(soon, "an answer of "+a.Pod, func(ctx context.Context) (bool, error) {
			res, err := s.Net.Run(ctx, "ping", "-c", "1", "-W", "1", a.Addr(false))
			return res.Code == 0, err
		}))
	}
	t.Run("a tap out of its bridge", func(t *testing.T) {
		onHost(ctx, t, s, "ip", "link", "set", web.Tap, "nomaster")
		answers(t, web)
	})
	t.Run("a tap set down", func(t *testing.T) {
		onHost(ctx, t, s, "ip", "link", "set", web.Tap, "down")
		answers(t, web)
	})
	t.Run("a tap in another network's bridge", func(t *testing.T) {
		run(ctx, t, s, "network", "create", "green", "--subnet", "10.232.0.0/24")
		onHost(ctx, t, s, "ip", "link", "set", web.Tap, "master", "bf-green")
		answers(t, web)
		assert.Contains(t, onHost(ctx, t, s, "ip", "link", "show", web.Tap), "master bf-blue")
		run(ctx, t, s, "network", "rm", "green")
	})
	t.Run("the bridge deleted", func(t *testing.T) {
		onHost(ctx, t, s, "ip", "link", "del", "bf-blue")
		run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24", "--subnet", bluePrefix6+"/64")
		answers(t, web)
		answers(t, db)
		settled(ctx, t, s, vm)
	})
	t.Run("the rules flushed", func(t *testing.T) {
		onHost(ctx, t, s, "nft", "flush", "ruleset")
		require.NoError(t, site.Until(ctx, "the rules to be back", func(ctx context.Context) (bool, error) {
			ids, err := s.RuleIDs(ctx)
			return len(ids) == 2, err
		}))
		answers(t, web)
	})
	t.Run("a tap deleted", func(t *testing.T) {
		onHost(ctx, t, s, "ip", "link", "del", db.Tap)
		awaitGone(ctx, t, s, db.ID)
		answers(t, web)
	})
	t.Run("the bridge's MAC for a pod", func(t *testing.T) {
		mac := onHost(ctx, t, s, "sh", "-c", "ip -o link show bf-blue | grep -o 'link/ether [^ ]*' | cut -d' ' -f2 | tr -d '\\n'")
		fails(ctx, t, s, "address_taken", "that of bridge bf-blue", "attach", "--vm", "vm1", "--pod", "db", "--mac", mac)
		answers(t, web)
	})
	run(ctx, t, s, "detach", "--pod", "web")
	assertNothingLeft(ctx, t, s, vm)
}

// TestIntegrationTwin registers the same QEMU twice.
func TestIntegrationTwin(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	run(ctx, t, s, "network", "create", "blue", "--subnet", bluePrefix4+"0/24")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", VNICs: 31, ExtraArgs: []string{"-qmp", "unix:" + s.Dir + "/second.qmp,server=on,wait=off"}})
	require.NoError(t, err)
	_, err = vm.AddPod(ctx, "web")
	require.NoError(t, err)
	require.NoError(t, s.AddVM(ctx, vm))
	a := attach(ctx, t, s, "--pod", "web")
	second := []string{"--qmp", s.Dir + "/second.qmp"}
	if lv := s.Libvirt(); lv != nil {
		require.NoError(t, os.Symlink(lv.Socket(), s.Dir+"/lv"))
		second = []string{"--libvirt", "qemu+unix:///system/vm1?socket=" + s.Dir + "/lv"}
	}
	again := append([]string{"vm", "add", "vm7", "--channel", s.Dir + "/none"}, second...)
	fails(ctx, t, s, "in_use", "vm vm7: its QEMU is that of vm1", again...)
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", a.Addr(false))
	assert.Equal(t, []string{a.ID}, settled(ctx, t, s, vm).Store)
	assert.NotContains(t, run(ctx, t, s, "vm", "list"), "vm7")
}
