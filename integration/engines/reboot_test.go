package engines

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationReboot reboots a guest whose engines have pods and containers,
// and still know them afterwards: their disk is the same.
func TestIntegrationReboot(t *testing.T) {
	ctx, lab := openLab(t)
	f := bootFixture(ctx, t, lab, site.Options{}, func(cfg *vmlab.Config) {
		own := filepath.Join(t.TempDir(), "disk")
		out, err := exec.CommandContext(ctx, "cp", "--sparse=always", cfg.Disk, own).CombinedOutput()
		require.NoError(t, err, "%s", out)
		cfg.Disk, cfg.KeepWrites = own, true
	})
	for _, dir := range []string{"/etc/cni/net.d", "/etc/containers/net.d"} {
		require.NoError(t, f.Put(ctx, dir+"/10-brfuse.conflist", []byte(cniConf), 0o644))
	}
	startDocker := func() {
		_, err := f.StartContainerd(ctx)
		require.NoError(t, err)
		_, err = f.StartDocker(ctx, append([]string{"--containerd", ContainerdSocket}, nestedOff...)...)
		require.NoError(t, err)
	}
	startDocker()
	require.NoError(t, f.LoadContainerd(ctx, "k8s.io"))
	require.NoError(t, f.LoadPodman(ctx))
	require.NoError(t, f.LoadDocker(ctx))

	p, err := f.RunPod(ctx, `{"name": "web", "namespace": "shop", "uid": "u-1"}`)
	require.NoError(t, err)
	r, list := newRuntime(t, f), confList(t)
	plain := r.pod(ctx, t, "plain", ports(map[string]any{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}))
	_, err = r.AddNetworkList(ctx, list, plain)
	require.NoError(t, err)
	f.must(ctx, t, "podman", "run", "-d", "--name", "web", "--network", "blue", Busybox, "sleep", "100000")
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--ipam-driver", "brfuse", "--ipam-opt", "network=blue", "-o", "network=blue", "blue")
	f.dockerRun(ctx, t, "--restart", "always", "--network", "blue")
	f.must(ctx, t, "docker", "run", "-d", "--name", "once", "--network", "blue", Busybox, "sleep", "100000")
	before, err := f.List(ctx)
	require.NoError(t, err)
	require.Len(t, before, 5)

	f.must(ctx, t, "sync")
	require.NoError(t, f.Restart(ctx))
	require.NoError(t, f.AwaitAgent(ctx, "vm1"))
	f.nothingLeft(ctx, t) // the host has seen it, and nobody has to say so

	require.NoError(t, r.DelNetworkList(ctx, list, plain), "with what it knew, and a namespace that is gone")
	_, err = f.AddPod(ctx, "plain") // for what removes it
	require.NoError(t, err)
	startDocker()
	assert.Contains(t, f.must(ctx, t, "crictl", "pods"), p.ID+" SANDBOX_NOTREADY")
	require.NoError(t, f.RemoveSandbox(ctx, p.ID))
	f.must(ctx, t, "podman", "rm", "-f", "web")
	f.awaitDocker(ctx, t, "web")
	f.assertFused(ctx, t, f.dockerPID(ctx, t), f.one(ctx, t))
	f.must(ctx, t, "docker", "start", "once")
	f.must(ctx, t, "docker", "rm", "-f", "once")
	f.dockerRemove(ctx, t)
	testPod(ctx, t, f)
}
