package engines

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// TestIntegrationContainerd runs pods of CRI, containers of ctr and of podman,
// each with its own vNIC by the CNI plugin.
func TestIntegrationContainerd(t *testing.T) {
	ctx, f := newFixture(t, site.Options{})
	require.NoError(t, f.Put(ctx, "/etc/cni/net.d/10-brfuse.conflist", []byte(cniConf), 0o644))
	_, err := f.StartContainerd(ctx)
	require.NoError(t, err)
	require.NoError(t, f.LoadContainerd(ctx, "k8s.io"))
	require.NoError(t, f.LoadContainerd(ctx, "default"))

	t.Run("cri", func(t *testing.T) { testPod(ctx, t, f) })
	t.Run("published port", func(t *testing.T) { testPodPort(ctx, t, f) })
	t.Run("ctr", func(t *testing.T) {
		out := f.must(ctx, t, "ctr", "run", "--rm", "--cni", Busybox, "c1", "sh", "-c", "ip -o addr; ping -c 1 -W 5 "+blue4+"1")
		assert.Contains(t, out, "eth0    inet "+blue4)
		assert.Contains(t, out, "1 packets received")
		f.nothingLeft(ctx, t)
	})
	t.Run("podman", func(t *testing.T) { testPodman(ctx, t, f) })
	t.Run("attach to a pod of cri", func(t *testing.T) { testAttachCRI(ctx, t, f) })
	t.Run("attach to a container of ctr", func(t *testing.T) { testAttachCtr(ctx, t, f) })
	t.Run("attach to a container of podman", func(t *testing.T) { testAttachPodman(ctx, t, f) })
	t.Run("published ports", func(t *testing.T) { testPublished(ctx, t, f) })
	t.Run("bandwidth", func(t *testing.T) { testBandwidth(ctx, t, f) })
	f.notNested(ctx, t)
	t.Run("chained plugins", func(t *testing.T) { testChained(ctx, t, f) })
}

// testPod is the life of a pod with two containers, as the kubelet has it.
func testPod(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	p, err := f.RunPod(ctx, `{"name": "web", "namespace": "shop", "uid": "u-1"}`)
	require.NoError(t, err)
	a := f.one(ctx, t)
	assert.Equal(t, p.ID, a.Pod)
	assert.Equal(t, map[string]string{"cni.network": "blue", "k8s.namespace": "shop", "k8s.pod": "web", "k8s.uid": "u-1"}, a.Labels)
	assert.Equal(t, a.Addr(false), p.IP, "what the kubelet is told")
	var pids []string
	for _, name := range []string{"main", "side"} {
		id, err := f.RunInPod(ctx, p.ID, `{"name": "`+name+`", "image": "`+Busybox+`", "args": ["/bin/sleep", "100000"]}`)
		require.NoError(t, err)
		pids = append(pids, f.must(ctx, t, "cat", "/run/containerd/io.containerd.runtime.v2.task/k8s.io/"+id+"/init.pid"))
	}
	for _, pid := range pids {
		f.assertFused(ctx, t, pid, a)
	}
	assert.Equal(t, f.ipIn(ctx, t, pids[0], "-o", "link"), f.ipIn(ctx, t, pids[1], "-o", "link"), "both see the same interface")
	assert.Equal(t, "1", strings.TrimSpace(readIn(ctx, t, f, pids[0], "/proc/sys/net/ipv4/conf/eth0/arp_notify")), "tuning worked after it")
	f.notNested(ctx, t)
	require.NoError(t, f.RemoveSandbox(ctx, p.ID))
	f.nothingLeft(ctx, t)
}

func readIn(ctx context.Context, t *testing.T, f fixture, pid, path string) string {
	t.Helper()
	res, err := f.RunIn(ctx, pid, "cat", path)
	require.NoError(t, err)
	require.NoError(t, res.Err())
	return res.Stdout
}

// testPodPort reaches a pod by a port of the hypervisor.
func testPodPort(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	p, err := f.RunPod(ctx, `{"name": "web", "namespace": "shop", "uid": "u-2", "ports": [{"host": 18080, "container": 80}]}`)
	require.NoError(t, err)
	_, err = f.RunInPod(ctx, p.ID, `{"name": "main", "image": "`+Busybox+`", "args": ["/bin/httpd", "-f", "-p", "80", "-h", "/etc"]}`)
	require.NoError(t, err)
	f.fetch(ctx, t, "http://"+blue4+"1:18080/passwd")
	require.NoError(t, f.RemoveSandbox(ctx, p.ID))
	f.nothingLeft(ctx, t)
}

// fetch gets a page on the host once the server there is up.
func (f fixture) fetch(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	err := site.Until(ctx, "an answer of "+url, func(ctx context.Context) (bool, error) {
		_, err := f.Output(ctx, "curl", "-sS", "-m", "5", url)
		return err == nil, err
	})
	require.NoError(t, err)
}

// testPodman runs containers of podman by its CNI backend, one with a static
// address and MAC, which it passes in CNI_ARGS.
func testPodman(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	require.NoError(t, f.Put(ctx, "/etc/containers/net.d/10-brfuse.conflist", []byte(cniConf), 0o644))
	require.NoError(t, f.LoadPodman(ctx))
	id := f.must(ctx, t, "podman", "run", "-d", "--name", "web", "--network", "blue", "--ip", blue4+"77", "--mac-address", "02:11:22:33:44:55",
		Busybox, "sleep", "100000")
	a := f.one(ctx, t)
	assert.Equal(t, id, a.Pod)
	assert.Equal(t, "02:11:22:33:44:55", a.MAC)
	assert.Equal(t, blue4+"77", a.Addr(false))
	f.assertFused(ctx, t, f.must(ctx, t, "podman", "inspect", "-f", "{{.State.Pid}}", "web"), a)
	f.notNested(ctx, t)
	f.must(ctx, t, "podman", "rm", "-f", "-t", "0", "web")
	f.nothingLeft(ctx, t)
}
