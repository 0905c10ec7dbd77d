package engines

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bridgeConf is how people without brfuse network their pods.
const bridgeConf = `{"cniVersion": "0.4.0", "name": "nested", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

// TestIntegrationBaseline shows what the engines do without brfuse, which is
// what its guests are compared with: a veth on a bridge, and translation.
func TestIntegrationBaseline(t *testing.T) {
	ctx, lab := openLab(t)
	vm, err := Boot(ctx, lab, shortDir(t))
	require.NoError(t, err)
	b := baseline{vm}
	t.Cleanup(func() {
		if t.Failed() {
			fixture{Guest: b.Guest}.logs(t)
		}
		assert.NoError(t, b.Close())
	})
	require.NoError(t, b.Put(ctx, "/etc/cni/net.d/10-nested.conflist", []byte(bridgeConf), 0o644))
	require.NoError(t, b.Do(ctx, "cp", "/etc/cni/net.d/10-nested.conflist", "/etc/containers/net.d/"))
	_, err = b.StartContainerd(ctx)
	require.NoError(t, err)

	t.Run("ctr", func(t *testing.T) { b.testCtr(ctx, t) })
	t.Run("cri", func(t *testing.T) { b.testCRI(ctx, t) })
	t.Run("podman", func(t *testing.T) { b.testPodman(ctx, t) })
	t.Run("docker", func(t *testing.T) { b.testDocker(ctx, t) })
}

// baseline is a guest with engines and without brfuse.
type baseline struct{ Guest }

func (b baseline) testCtr(ctx context.Context, t *testing.T) {
	t.Helper()
	require.NoError(t, b.LoadContainerd(ctx, "default"))
	require.NoError(t, b.Do(ctx, "ctr", "run", "-d", "--cni", Busybox, "c1", "sleep", "100000"))
	pid, err := b.TaskPID(ctx, "default", "c1")
	require.NoError(t, err)
	b.assertNested(ctx, t, pid, "10.88.", "cni0")
	require.NoError(t, b.Do(ctx, "ctr", "task", "rm", "-f", "c1"))
	require.NoError(t, b.Do(ctx, "ctr", "container", "rm", "c1"))
	// What was started with -d is never reported to the plugin as gone; this is.
	out, err := b.Output(ctx, "ctr", "run", "--rm", "--cni", Busybox, "c2", "ip", "-o", "addr")
	require.NoError(t, err)
	assert.Contains(t, out, "inet 10.88.")
	b.assertNoVeth(ctx, t)
}

func (b baseline) testCRI(ctx context.Context, t *testing.T) {
	t.Helper()
	require.NoError(t, b.LoadContainerd(ctx, "k8s.io"))
	p, err := b.RunPod(ctx, `{"name": "web", "namespace": "default", "uid": "u1"}`)
	require.NoError(t, err)
	id, err := b.RunInPod(ctx, p.ID, `{"name": "main", "image": "`+Busybox+`", "args": ["/bin/sleep", "1000"]}`)
	require.NoError(t, err)
	sandbox, err := b.TaskPID(ctx, "k8s.io", p.ID)
	require.NoError(t, err)
	pid, err := b.TaskPID(ctx, "k8s.io", id)
	require.NoError(t, err)
	assert.Equal(t, b.netns(ctx, t, sandbox), b.netns(ctx, t, pid), "a pod has one namespace")
	assert.Equal(t, p.IP, b.assertNested(ctx, t, pid, "10.88.", "cni0"))

	// The kubelet finds a sandbox whose shim was killed not ready, and removes it.
	shim, err := b.Shim(ctx, p.ID)
	require.NoError(t, err)
	require.NoError(t, b.Kill(ctx, shim))
	require.NoError(t, b.RemoveSandbox(ctx, p.ID))
	out, err := b.Output(ctx, "crictl", "pods")
	require.NoError(t, err)
	assert.Empty(t, out)
	b.assertNoVeth(ctx, t)
}

func (b baseline) testPodman(ctx context.Context, t *testing.T) {
	t.Helper()
	require.NoError(t, b.LoadPodman(ctx))
	require.NoError(t, b.Do(ctx, "podman", "run", "-d", "--name", "c1", "--network", "nested", Busybox, "sleep", "100000"))
	pid, err := b.PodmanPID(ctx, "c1")
	require.NoError(t, err)
	b.assertNested(ctx, t, pid, "10.88.", "cni0")
	require.NoError(t, b.Do(ctx, "podman", "rm", "-f", "-t", "0", "c1"))
	b.assertNoVeth(ctx, t)
}

// testDocker also kills dockerd, whose containers go on when it is told so.
func (b baseline) testDocker(ctx context.Context, t *testing.T) {
	t.Helper()
	dockerd, err := b.StartDocker(ctx, "--live-restore", "--containerd", ContainerdSocket)
	require.NoError(t, err)
	require.NoError(t, b.LoadDocker(ctx))
	require.NoError(t, b.Do(ctx, "docker", "run", "-d", "--name", "c1", "-m", "64m", Busybox, "sleep", "100000"))
	pid, err := b.DockerPID(ctx, "c1")
	require.NoError(t, err)
	b.assertNested(ctx, t, pid, "172.17.", "docker0")
	limit, err := b.Output(ctx, "docker", "exec", "c1", "cat", "/sys/fs/cgroup/memory.max")
	require.NoError(t, err)
	assert.Equal(t, "67108864", limit, "cgroups work")

	require.NoError(t, dockerd.Kill(ctx))
	dockerd, err = b.StartDocker(ctx, "--live-restore", "--containerd", ContainerdSocket)
	require.NoError(t, err)
	again, err := b.DockerPID(ctx, "c1")
	require.NoError(t, err)
	assert.Equal(t, pid, again, "the container has outlived its engine")
	require.NoError(t, b.Do(ctx, "docker", "rm", "-f", "c1"))
	b.assertNoVeth(ctx, t)
	require.NoError(t, dockerd.Signal(ctx, syscall.SIGTERM))
	code, err := dockerd.Wait(ctx)
	require.NoError(t, err)
	assert.Zero(t, code)
}

// assertNested checks that the process's eth0 is a veth with an address of that
// prefix, that the guest's bridge reaches it and that the guest translates for
// it. It returns the address.
func (b baseline) assertNested(ctx context.Context, t *testing.T, pid int, prefix, bridge string) string {
	t.Helper()
	res, err := b.RunIn(ctx, strconv.Itoa(pid), "ip", "-d", "-o", "addr", "show", "eth0")
	require.NoError(t, err)
	require.NoError(t, res.Err())
	_, rest, ok := strings.Cut(res.Stdout, "inet "+prefix)
	require.True(t, ok, res.Stdout)
	host, _, _ := strings.Cut(rest, "/")
	addr := prefix + host
	links, err := b.Output(ctx, "ip", "-o", "link", "show", "type", "veth", "master", bridge)
	require.NoError(t, err)
	require.NotEmpty(t, links)
	assert.NotContains(t, links, "\n", "the one container has one veth")
	require.NoError(t, b.Do(ctx, "ping", "-c", "1", "-W", "20", addr))
	rules, err := b.Output(ctx, "iptables", "-t", "nat", "-S")
	require.NoError(t, err)
	assert.Contains(t, rules, "MASQUERADE")
	return addr
}

// netns returns what identifies a process's network namespace.
func (b baseline) netns(ctx context.Context, t *testing.T, pid int) string {
	t.Helper()
	out, err := b.Output(ctx, "readlink", "/proc/"+strconv.Itoa(pid)+"/ns/net")
	require.NoError(t, err)
	return out
}

func (b baseline) assertNoVeth(ctx context.Context, t *testing.T) {
	t.Helper()
	res, err := b.Shell(ctx, "for i in $(seq 200); do test -z \"$(ip -o link show type veth)\" && exit 0; usleep 50000; done; ip -o link; exit 1")
	require.NoError(t, err)
	assert.NoError(t, res.Err(), "the veth goes with its namespace, which may take a while")
}
