package engines

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cnitest"
)

// runtime is a CNI runtime: libcni here, and its plugins in the guest. It can
// tell the plugins what the engines can't.
type runtime struct {
	fixture
	*libcni.CNIConfig
}

func (f fixture) exec() *cnitest.ShellExec {
	return &cnitest.ShellExec{Run: func(ctx context.Context, script string) (string, string, int, error) {
		res, err := f.Shell(ctx, script)
		return res.Stdout, res.Stderr, res.Code, err
	}}
}

func newRuntime(t *testing.T, f fixture) runtime {
	t.Helper()
	return runtime{f, libcni.NewCNIConfigWithCacheDir([]string{"/usr/lib/cni"}, t.TempDir(), f.exec())}
}

// confList is a configuration of network blue, and of plugins that follow.
func confList(t *testing.T, after ...map[string]any) *libcni.NetworkConfigList {
	t.Helper()
	first := map[string]any{"type": "brfuse", "network": "blue", "capabilities": map[string]bool{"bandwidth": true, "portMappings": true}}
	raw, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "blue", "plugins": append([]map[string]any{first}, after...)})
	require.NoError(t, err)
	list, err := libcni.NetworkConfFromBytes(raw)
	require.NoError(t, err)
	return list
}

// pod makes a network namespace and returns it for libcni, with what plugins are
// to be told. The test that it is of removes it.
func (r runtime) pod(ctx context.Context, t *testing.T, name string, capabilities map[string]any) *libcni.RuntimeConf {
	t.Helper()
	_, err := r.AddPod(ctx, name)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.RemovePod(context.WithoutCancel(ctx), name)) })
	return &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + name, IfName: "eth0", CapabilityArgs: capabilities}
}

// ports is the argument of capability portMappings.
func ports(list ...map[string]any) map[string]any { return map[string]any{"portMappings": list} }

// testChained has plugins of Debian's package come after brfuse, with what they
// are told.
func testChained(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	r := newRuntime(t, f)
	portmap := map[string]any{"type": "portmap", "snat": true, "capabilities": map[string]bool{"portMappings": true}}
	bandwidth := map[string]any{"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}}
	// Debian's tuning knows IFNAME in ADD, but not in CHECK.
	tuning := map[string]any{"type": "tuning", "sysctl": map[string]string{"net.ipv4.conf.eth0.arp_notify": "1"}}
	mapping := ports(map[string]any{"hostPort": 18090, "containerPort": 80, "protocol": "tcp"})
	limits := map[string]any{"bandwidth": map[string]any{"ingressRate": 8_000_000, "ingressBurst": 800_000}}
	for _, tt := range []struct {
		name         string
		list         *libcni.NetworkConfigList
		capabilities map[string]any
		add, check   string // what it fails by
	}{
		{"tuning", confList(t, tuning), nil, "", ""},
		// Debian's portmap looks for the rules of each family in both, after bridge too.
		{"portmap", confList(t, portmap), mapping, "", "could not check ipv6 dnat"},
		// It looks for the host's end of a veth also when it has nothing to limit.
		{"bandwidth without limits", confList(t, bandwidth), nil, "", "veth"},
		{"bandwidth with limits", confList(t, bandwidth), limits, "veth", ""},
		{"limits without bandwidth, by brfuse itself", confList(t), limits, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt := r.pod(ctx, t, "chained", tt.capabilities)
			_, err := r.AddNetworkList(ctx, tt.list, rt)
			failsBy(t, err, tt.add)
			if err == nil {
				f.answers(ctx, t, f.one(ctx, t).Addr(false))
				failsBy(t, r.CheckNetworkList(ctx, tt.list, rt), tt.check)
			}
			require.NoError(t, r.DelNetworkList(ctx, tt.list, rt))
			f.nothingLeft(ctx, t)
		})
	}
	// portmap leaves the beginnings of its rules in the guest.
	f.must(ctx, t, "nft", "flush", "ruleset")
}

// failsBy checks an error by a part of its text; without one there is to be none.
func failsBy(t *testing.T, err error, text string) {
	t.Helper()
	if text == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, text)
	t.Log(err)
}
