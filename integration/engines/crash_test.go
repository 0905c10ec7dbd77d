package engines

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// The points at which the daemon pauses while something else is killed: late in
// an attach, when there is most to take back, and early in a detach.
const (
	duringAdd = "attach.moved"
	duringDel = "detach.detaching"
)

// pausing restarts the daemon so that it pauses at a failpoint.
func (f fixture) pausing(ctx context.Context, t *testing.T, point string) {
	t.Helper()
	f.KillDaemon()
	require.NoError(t, f.StartDaemon(ctx, point+"=pause:"+f.Dir))
	require.NoError(t, f.AwaitAgent(ctx, "vm1"))
}

// interrupt runs a command in the guest until the daemon pauses, kills something,
// lets the daemon go on, and waits for the command's end, whatever that is.
func (f fixture) interrupt(ctx context.Context, t *testing.T, point string, kill func() error, argv ...string) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := f.Run(ctx, argv...)
		ended <- err
	}()
	file := filepath.Join(f.Dir, point)
	require.NoError(t, site.Until(ctx, "the daemon's pause at "+point, func(context.Context) (bool, error) {
		_, err := os.Stat(file)
		return err == nil, err
	}))
	require.NoError(t, kill())
	require.NoError(t, os.Remove(file))
	require.NoError(t, <-ended)
}

// killProgram kills a program in the guest as kill -9 does, and waits for its end.
func (f fixture) killProgram(ctx context.Context, name string) error {
	p, err := f.Find(ctx, name)
	if err != nil {
		return err
	}
	return p.Kill(ctx)
}

func (f fixture) startAgent(ctx context.Context) error {
	if _, err := f.Start(ctx, vmlab.Command{Argv: []string{site.AgentPath}}); err != nil {
		return err
	}
	return f.AwaitAgent(ctx, "vm1")
}

func (f fixture) startDaemon(ctx context.Context) error {
	if err := f.StartDaemon(ctx); err != nil {
		return err
	}
	return f.AwaitAgent(ctx, "vm1")
}

// victim is what is killed, and how it comes back.
type victim struct {
	name          string
	kill, restart func() error
}

// victims are brfuse's own two, which every engine's test has, and the engine.
func (f fixture) victims(ctx context.Context, engine string, restart func() error) []victim {
	return []victim{
		{"agent", func() error { return f.killProgram(ctx, "brfuse-agent") }, func() error { return f.startAgent(ctx) }},
		{"daemon", func() error { f.KillDaemon(); return nil }, func() error { return f.startDaemon(ctx) }},
		{engine, func() error { return f.killProgram(ctx, engine) }, restart},
	}
}

// TestIntegrationContainerdCrash kills containerd, the agent and the daemon in
// the middle of ADD and DEL. A retry of the runtime, and a GC of CNI for what it
// has forgotten, bring all sides to agreement.
func TestIntegrationContainerdCrash(t *testing.T) {
	ctx, f := newFixture(t, site.Options{Failpoints: true})
	require.NoError(t, f.Put(ctx, "/etc/cni/net.d/10-brfuse.conflist", []byte(cniConf), 0o644))
	_, err := f.StartContainerd(ctx)
	require.NoError(t, err)
	require.NoError(t, f.LoadContainerd(ctx, "k8s.io"))
	pod := `{"name": "web", "namespace": "shop", "uid": "u-1"}`
	victims := f.victims(ctx, "containerd", func() error { _, err := f.StartContainerd(ctx); return err })
	for _, v := range victims {
		t.Run(v.name+" during ADD", func(t *testing.T) {
			f.pausing(ctx, t, duringAdd)
			f.interrupt(ctx, t, duringAdd, v.kill, "crictl", "run-pod", pod)
			require.NoError(t, v.restart())
			f.cleanPods(ctx, t)
		})
		t.Run(v.name+" during DEL", func(t *testing.T) {
			f.pausing(ctx, t, duringDel)
			p, err := f.RunPod(ctx, pod)
			require.NoError(t, err)
			f.interrupt(ctx, t, duringDel, v.kill, "crictl", "stop-pod", p.ID)
			require.NoError(t, v.restart())
			f.cleanPods(ctx, t)
		})
	}
	f.pausing(ctx, t, "none")
	testPod(ctx, t, f)
}

// cleanPods removes all sandboxes, as the kubelet does again and again, and then
// what CNI knows of none.
func (f fixture) cleanPods(ctx context.Context, t *testing.T) {
	t.Helper()
	for line := range strings.Lines(f.must(ctx, t, "crictl", "pods")) {
		require.NoError(t, f.RemoveSandbox(ctx, fields(line)[0]))
	}
	f.gcCNI(ctx, t)
	f.nothingLeft(ctx, t)
}

// gcCNI has the plugin keep nothing, as a runtime does by the GC of CNI 1.1.
func (f fixture) gcCNI(ctx context.Context, t *testing.T) {
	t.Helper()
	conf := `{"cniVersion": "1.1.0", "name": "blue", "type": "brfuse", "network": "blue", "cni.dev/valid-attachments": []}`
	res, err := f.Shell(ctx, "echo '"+conf+"' | CNI_COMMAND=GC CNI_PATH=/usr/lib/cni /usr/lib/cni/brfuse")
	require.NoError(t, err)
	require.NoError(t, res.Err())
}

// TestIntegrationDockerCrash kills dockerd, the agent and the daemon in the middle
// of an endpoint's creation and deletion, and dockerd while a container runs.
func TestIntegrationDockerCrash(t *testing.T) {
	ctx, f := newFixture(t, site.Options{Failpoints: true})
	_, err := f.StartContainerd(ctx) // outlives dockerd, which would leave its own one behind
	require.NoError(t, err)
	start := func(args ...string) error {
		_, err := f.StartDocker(ctx, append(args, nestedOff...)...)
		return err
	}
	require.NoError(t, start())
	require.NoError(t, f.LoadDocker(ctx))
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--ipam-driver", "brfuse", "--ipam-opt", "network=blue", "-o", "network=blue", "blue")
	run := []string{"docker", "run", "-d", "--name", "web", "--network", "blue", Busybox, "sleep", "100000"}
	clean := func(t *testing.T) {
		t.Helper()
		_, _ = f.Run(ctx, "docker", "rm", "-f", "web") // it may not be there
		f.nothingLeft(ctx, t)
		f.must(ctx, t, run...)
		f.answers(ctx, t, f.one(ctx, t).Addr(false))
		f.must(ctx, t, "docker", "rm", "-f", "web")
		f.nothingLeft(ctx, t)
	}
	victims := f.victims(ctx, "dockerd", func() error { return start() })
	for _, v := range victims {
		t.Run(v.name+" during run", func(t *testing.T) {
			f.pausing(ctx, t, duringAdd)
			f.interrupt(ctx, t, duringAdd, v.kill, run...)
			require.NoError(t, v.restart())
			f.pausing(ctx, t, "none")
			clean(t)
		})
		t.Run(v.name+" during rm", func(t *testing.T) {
			f.pausing(ctx, t, duringDel)
			f.must(ctx, t, run...)
			f.interrupt(ctx, t, duringDel, v.kill, "docker", "rm", "-f", "web")
			require.NoError(t, v.restart())
			f.pausing(ctx, t, "none")
			clean(t)
		})
	}
	t.Run("dockerd, and the container before its restart", func(t *testing.T) {
		f.must(ctx, t, run...)
		pid := f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "web")
		require.NoError(t, f.killProgram(ctx, "dockerd"))
		f.must(ctx, t, "kill", "-9", pid)
		require.NoError(t, start())
		f.nothingLeft(ctx, t) // the driver is never told
		f.must(ctx, t, "docker", "rm", "-f", "web")
		clean(t)
	})
	t.Run("agent while a container runs", func(t *testing.T) {
		f.must(ctx, t, run...)
		a := f.one(ctx, t)
		require.NoError(t, f.killProgram(ctx, "brfuse-agent"))
		require.NoError(t, f.startAgent(ctx))
		f.answers(ctx, t, a.Addr(false))
		f.settledAs(ctx, t, a.ID)
		f.must(ctx, t, "docker", "rm", "-f", "web")
		f.nothingLeft(ctx, t)
	})
	t.Run("restart of dockerd with live-restore", func(t *testing.T) {
		f.stopDocker(ctx, t)
		require.NoError(t, start("--live-restore"))
		f.must(ctx, t, run...)
		a := f.one(ctx, t)
		f.stopDocker(ctx, t)
		f.answers(ctx, t, a.Addr(false))
		require.NoError(t, f.killProgram(ctx, "brfuse-agent"))
		require.NoError(t, f.startAgent(ctx)) // while dockerd is down
		f.answers(ctx, t, a.Addr(false))
		require.NoError(t, start("--live-restore"))
		f.settledAs(ctx, t, a.ID)
		f.answers(ctx, t, a.Addr(false))
		f.must(ctx, t, "docker", "rm", "-f", "web")
		f.nothingLeft(ctx, t)
	})
}

// stopDocker stops dockerd in order.
func (f fixture) stopDocker(ctx context.Context, t *testing.T) {
	t.Helper()
	p, err := f.Find(ctx, "dockerd")
	require.NoError(t, err)
	require.NoError(t, p.Signal(ctx, syscall.SIGTERM))
	_, err = p.Wait(ctx)
	require.NoError(t, err)
}

// settledAs checks that all sides agree on the one attachment.
func (f fixture) settledAs(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	tr, err := f.Settle(ctx, f.VM)
	require.NoError(t, err)
	assert.Equal(t, []string{id}, tr.Store)
}
