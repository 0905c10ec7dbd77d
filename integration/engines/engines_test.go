package engines

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bridgeConf is how people without brfuse network their pods.
const bridgeConf = `{"cniVersion": "0.4.0", "name": "nested", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

// TestIntegrationBaseline shows what the engines do without brfuse, which is
// what its guests are compared with.
func TestIntegrationBaseline(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g, err := Boot(ctx, lab, dir)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })

	t.Run("docker", func(t *testing.T) {
		_, err := g.StartDocker(ctx)
		require.NoError(t, err)
		require.NoError(t, g.LoadDocker(ctx))
		assertVeth(ctx, t, g, "docker", "run", "--rm", Busybox, "ip", "-o", "addr")
	})
	require.NoError(t, g.Put(ctx, "/etc/cni/net.d/10-nested.conflist", []byte(bridgeConf), 0o644))
	t.Run("containerd", func(t *testing.T) {
		_, err := g.StartContainerd(ctx)
		require.NoError(t, err)
		require.NoError(t, g.LoadContainerd(ctx, "default"))
		assertVeth(ctx, t, g, "ctr", "run", "--rm", "--cni", Busybox, "c1", "ip", "-o", "addr")
	})
	t.Run("cri", func(t *testing.T) {
		require.NoError(t, g.LoadContainerd(ctx, "k8s.io"))
		p, err := g.RunPod(ctx, `{"name": "web", "namespace": "default", "uid": "u1"}`)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(p.IP, "10.88."), p.IP)
		_, err = g.RunInPod(ctx, p.ID, `{"name": "main", "image": "`+Busybox+`", "args": ["/bin/sleep", "1000"]}`)
		require.NoError(t, err)
		require.NoError(t, g.RemoveSandbox(ctx, p.ID))
	})
	t.Run("podman", func(t *testing.T) {
		require.NoError(t, g.Do(ctx, "cp", "/etc/cni/net.d/10-nested.conflist", "/etc/containers/net.d/"))
		require.NoError(t, g.LoadPodman(ctx))
		assertVeth(ctx, t, g, "podman", "run", "--rm", "--network", "nested", Busybox, "ip", "-o", "addr")
	})
}

func assertVeth(ctx context.Context, t *testing.T, g Guest, argv ...string) {
	t.Helper()
	out, err := g.Output(ctx, argv...)
	require.NoError(t, err)
	assert.Regexp(t, `eth0 +inet `, out)
	t.Log(out)
}
