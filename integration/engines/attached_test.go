package engines

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// ref is a container as `brfuse attach --container` has it.
type ref struct{ runtime, container string }

// attach gives a running container a vNIC on network green, as net1.
func (f fixture) attach(ctx context.Context, t *testing.T, r ref) site.Attachment {
	t.Helper()
	var a site.Attachment
	require.NoError(t, f.BrfuseJSON(ctx, &a, "attach", "--vm", "vm1", "--container", r.container, "--runtime", r.runtime,
		"--network", "green", "--ifname", "net1", "--no-default-route"))
	return a
}

// detach takes away what attach gave.
func (f fixture) detach(ctx context.Context, t *testing.T, r ref) string {
	t.Helper()
	return f.brfuse(ctx, t, "detach", "--vm", "vm1", "--container", r.container, "--runtime", r.runtime)
}

// attachFails checks that a container gets no vNIC, and what the user is told.
func (f fixture) attachFails(ctx context.Context, t *testing.T, r ref, text string) {
	t.Helper()
	before, err := f.List(ctx)
	require.NoError(t, err)
	res, err := f.Brfuse(ctx, "attach", "--vm", "vm1", "--container", r.container, "--runtime", r.runtime, "--network", "green", "--ifname", "net1")
	require.NoError(t, err)
	assert.NotZero(t, res.Code)
	assert.Contains(t, res.Stderr, text)
	after, err := f.List(ctx)
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

// assertNet1 checks that the process has the vNIC under the name net1.
func (f fixture) assertNet1(ctx context.Context, t *testing.T, pid string, a site.Attachment) {
	t.Helper()
	assert.Equal(t, "net1", a.Interface)
	f.assertFused(ctx, t, pid, a)
	assert.Contains(t, f.ipIn(ctx, t, pid, "-o", "link", "show", "net1"), a.MAC)
}

// testAttachCRI gives a pod of CRI, by any of its containers, a second vNIC
// beside the plugin's.
func testAttachCRI(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	p, err := f.RunPod(ctx, `{"name": "web", "namespace": "shop", "uid": "u-3"}`)
	require.NoError(t, err)
	first := f.one(ctx, t)
	ids := map[string]string{}
	for _, name := range []string{"main", "side"} {
		ids[name], err = f.RunInPod(ctx, p.ID, `{"name": "`+name+`", "image": "`+Busybox+`", "args": ["/bin/sleep", "100000"]}`)
		require.NoError(t, err)
	}
	a := f.attach(ctx, t, ref{"containerd", ids["main"]})
	assert.Equal(t, p.ID, a.Pod, "a container leads to its sandbox")
	assert.Equal(t, map[string]string{"container.id": ids["main"], "container.name": "shop/web/main", "container.runtime": "containerd"}, a.Labels)
	pid, err := f.TaskPID(ctx, "k8s.io", ids["side"])
	require.NoError(t, err)
	f.assertNet1(ctx, t, strconv.Itoa(pid), a)
	for _, other := range []string{ids["side"], ids["side"][:16], "side", "shop/web", "k8s.io/" + p.ID} {
		assert.Equal(t, a.ID, f.attach(ctx, t, ref{"containerd", other}).ID, other)
	}
	f.attachFails(ctx, t, ref{"containerd", "nope"}, "none of")
	f.attachFails(ctx, t, ref{"docker", ids["main"]}, "is it running in this guest")
	f.attachFails(ctx, t, ref{"lxc", ids["main"]}, "is none of docker, containerd, podman")
	assert.Contains(t, f.detach(ctx, t, ref{"containerd", "side"}), a.ID)
	assert.Equal(t, first.ID, f.one(ctx, t).ID, "the plugin's own stays")
	f.answers(ctx, t, first.Addr(false))
	// What is still attached when the pod ends is found out.
	f.attach(ctx, t, ref{"containerd", ids["side"]})
	require.NoError(t, f.RemoveSandbox(ctx, p.ID))
	f.nothingLeft(ctx, t)
}

// testAttachCtr gives a container of ctr, which has no network, its only vNIC.
func testAttachCtr(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	f.must(ctx, t, "ctr", "run", "-d", Busybox, "lone", "sleep", "100000")
	pid, err := f.TaskPID(ctx, "default", "lone")
	require.NoError(t, err)
	r := ref{"containerd", "lone"}
	a := f.attach(ctx, t, r)
	f.assertNet1(ctx, t, strconv.Itoa(pid), a)
	assert.Contains(t, f.detach(ctx, t, r), a.ID)
	f.nothingLeft(ctx, t)
	f.must(ctx, t, "ctr", "task", "kill", "-s", "KILL", "lone")
	f.must(ctx, t, "sh", "-c", "until ctr task ls | grep -q STOPPED; do usleep 20000; done")
	f.attachFails(ctx, t, r, "start it")
	f.must(ctx, t, "ctr", "task", "rm", "lone")
	f.must(ctx, t, "ctr", "container", "rm", "lone")
	f.must(ctx, t, "ctr", "run", "-d", "--net-host", Busybox, "host", "sleep", "100000")
	f.attachFails(ctx, t, ref{"containerd", "host"}, "shares the network of the guest itself")
	f.must(ctx, t, "ctr", "task", "rm", "-f", "host")
	f.must(ctx, t, "ctr", "container", "rm", "host")
}

// testAttachPodman gives containers of podman a vNIC, by name and by the
// beginning of the ID.
func testAttachPodman(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	id := f.must(ctx, t, "podman", "run", "-d", "--name", "lone", "--network", "none", Busybox, "sleep", "100000")
	pid := f.must(ctx, t, "podman", "inspect", "-f", "{{.State.Pid}}", "lone")
	a := f.attach(ctx, t, ref{"podman", "lone"})
	assert.Equal(t, id, a.Pod)
	f.assertNet1(ctx, t, pid, a)
	assert.Equal(t, a.ID, f.attach(ctx, t, ref{"podman", id[:12]}).ID)
	f.attachFails(ctx, t, ref{"containerd", id}, "none of")
	f.must(ctx, t, "podman", "stop", "-t", "0", "lone")
	f.nothingLeft(ctx, t)
	f.attachFails(ctx, t, ref{"podman", "lone"}, "start it")
	assert.Contains(t, f.detach(ctx, t, ref{"podman", "lone"}), "nothing to detach")
	f.must(ctx, t, "podman", "rm", "lone")
	f.must(ctx, t, "podman", "run", "-d", "--name", "host", "--network", "host", Busybox, "sleep", "100000")
	f.attachFails(ctx, t, ref{"podman", "host"}, "shares the network of the guest itself")
	f.must(ctx, t, "podman", "rm", "-f", "-t", "0", "host")
}

// testAttachDocker gives containers of Docker a vNIC: one without a network, and
// one that is on a network of the driver.
func testAttachDocker(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	id := f.must(ctx, t, "docker", "run", "-d", "--name", "lone", "--network", "none", Busybox, "sleep", "100000")
	a := f.attach(ctx, t, ref{"docker", "lone"})
	assert.Equal(t, map[string]string{"container.id": id, "container.name": "lone", "container.runtime": "docker"}, a.Labels)
	f.assertNet1(ctx, t, f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "lone"), a)
	assert.Equal(t, a.ID, f.attach(ctx, t, ref{"docker", id[:12]}).ID)
	assert.Contains(t, f.detach(ctx, t, ref{"docker", id[:12]}), a.ID)
	f.nothingLeft(ctx, t)

	f.must(ctx, t, "docker", "run", "-d", "--name", "web", "--network", "blue", Busybox, "sleep", "100000")
	pid := f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "web")
	first := f.one(ctx, t)
	f.attachFails(ctx, t, ref{"docker", "web"}, "attach without default routes")
	a = f.attach(ctx, t, ref{"docker", "web"})
	f.assertNet1(ctx, t, pid, a)
	f.assertFused(ctx, t, pid, first)
	f.detach(ctx, t, ref{"docker", "web"})
	assert.Equal(t, first.ID, f.one(ctx, t).ID, "the driver's own stays")
	f.attach(ctx, t, ref{"docker", "web"})
	f.must(ctx, t, "docker", "rm", "-f", "web")
	f.nothingLeft(ctx, t)

	f.must(ctx, t, "docker", "stop", "-t", "0", "lone")
	f.attachFails(ctx, t, ref{"docker", "lone"}, "start it")
	f.must(ctx, t, "docker", "rm", "lone")
	f.attachFails(ctx, t, ref{"docker", "lone"}, "No such container: lone")
	f.must(ctx, t, "docker", "run", "-d", "--name", "host", "--network", "host", Busybox, "sleep", "100000")
	f.attachFails(ctx, t, ref{"docker", "host"}, "shares the network of the guest itself")
	f.must(ctx, t, "docker", "rm", "-f", "host")
}
