package engines

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// dockerRun starts a container named web, which sleeps, and returns the pid of
// its first process.
func (f fixture) dockerRun(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	f.must(ctx, t, slices.Concat([]string{"docker", "run", "-d", "--name", "web"}, args, []string{Busybox, "sleep", "100000"})...)
	return f.dockerPID(ctx, t)
}

func (f fixture) dockerPID(ctx context.Context, t *testing.T) string {
	t.Helper()
	return f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "web")
}

// dockerRemove removes the container web, with which all has to go.
func (f fixture) dockerRemove(ctx context.Context, t *testing.T) {
	t.Helper()
	f.must(ctx, t, "docker", "rm", "-f", "web")
	f.nothingLeft(ctx, t)
}

// awaitDocker waits until dockerd has started a container.
func (f fixture) awaitDocker(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	require.NoError(t, site.Until(ctx, "the start of container "+name, func(ctx context.Context) (bool, error) {
		out, err := f.Guest.Output(ctx, "docker", "inspect", "-f", "{{.State.Running}}", name)
		return out == "true", err
	}))
}

// testDockerIPv6 makes networks of both families in each way that there is, and
// a container on each.
func testDockerIPv6(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	subnets := []string{"--subnet", blue4 + "0/24", "--gateway", blue4 + "1", "--subnet", blue6 + "/64", "--gateway", blue6 + "1"}
	own := []string{"--ipam-driver", "brfuse", "--ipam-opt", "network=blue"}
	// Docker takes wanted addresses only where people have named the subnets.
	for _, tt := range []struct {
		name          string
		network, with []string
		want4, want6  string
	}{
		{name: "addresses of brfuse", network: own},
		{
			name: "wanted addresses of brfuse", network: slices.Concat(own, subnets), with: []string{"--ip", blue4 + "88", "--ip6", blue6 + "88"},
			want4: blue4 + "88", want6: blue6 + "88",
		},
		{
			name: "wanted addresses of docker", network: subnets, with: []string{"--ip", blue4 + "89", "--ip6", blue6 + "89"},
			want4: blue4 + "89", want6: blue6 + "89",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.must(ctx, t, slices.Concat([]string{"docker", "network", "create", "-d", "brfuse", "--ipv6", "-o", "network=blue"}, tt.network, []string{"both"})...)
			pid := f.dockerRun(ctx, t, append([]string{"--network", "both"}, tt.with...)...)
			a := f.one(ctx, t)
			require.Len(t, a.Addresses, 2)
			f.assertFused(ctx, t, pid, a)
			f.answers(ctx, t, a.Addr(true))
			if tt.want4 != "" {
				assert.Equal(t, tt.want4, a.Addr(false))
				assert.Equal(t, tt.want6, a.Addr(true))
			}
			assert.Contains(t, f.ipIn(ctx, t, pid, "route"), "default via "+blue4+"1")
			assert.Contains(t, f.ipIn(ctx, t, pid, "-6", "route"), "default via "+blue6+"1")
			inspected := f.must(ctx, t, "docker", "network", "inspect", "both")
			assert.Contains(t, inspected, a.Addr(false)+"/24")
			assert.Contains(t, inspected, a.Addr(true)+"/64")
			f.dockerRemove(ctx, t)
			f.must(ctx, t, "docker", "network", "rm", "both")
			f.nothingLeft(ctx, t)
		})
	}
}

// testDockerInternal makes a network without a way out, whose containers reach
// their neighbours alone.
func testDockerInternal(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--internal", "--ipam-driver", "brfuse", "--ipam-opt", "network=green", "-o", "network=green", "inside")
	pid := f.dockerRun(ctx, t, "--network", "inside")
	f.assertFused(ctx, t, pid, f.one(ctx, t))
	assert.NotContains(t, f.ipIn(ctx, t, pid, "route"), "default")
	f.notNested(ctx, t) // docker would have its own gateway, if it were left open
	f.dockerRemove(ctx, t)
	f.must(ctx, t, "docker", "network", "rm", "inside")
	f.nothingLeft(ctx, t)
}

// testDockerChanged has containers change their vNIC. Docker finds the one and
// moves it back as it is, and the other comes back by the end of its namespace.
func testDockerChanged(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	for _, tt := range []struct{ name, script string }{
		{"mac and mtu", "ip link set eth0 down; ip link set eth0 address 02:66:66:66:66:66 mtu 1280; ip link set eth0 up"},
		{"mac, mtu and name", "ip link set eth0 down; ip link set eth0 address 02:66:66:66:66:66 mtu 1280; ip link set eth0 name lan0; ip link set lan0 up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pid := f.dockerRun(ctx, t, "--cap-add", "NET_ADMIN", "--network", "blue")
			before := f.one(ctx, t)
			f.must(ctx, t, "docker", "exec", "web", "sh", "-e", "-c", tt.script)
			assert.NotContains(t, f.ipIn(ctx, t, pid, "-o", "addr"), before.Addr(false)+"/24 scope global eth0\n", "it did change")
			f.dockerRemove(ctx, t)
			pid = f.dockerRun(ctx, t, "--network", "blue")
			a := f.one(ctx, t)
			f.assertFused(ctx, t, pid, a)
			assert.Contains(t, f.ipIn(ctx, t, pid, "-o", "link", "show", "eth0"), "mtu 1500")
			f.dockerRemove(ctx, t)
		})
	}
}

// testDockerRestarts stops dockerd, which stops its containers, and starts it
// again; also when the agent is another by then.
func testDockerRestarts(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	for _, tt := range []struct {
		name      string
		meanwhile func() error
	}{
		{"restart", func() error { return nil }},
		{"restart, and the agent's meanwhile", func() error {
			if err := f.killProgram(ctx, "brfuse-agent"); err != nil {
				return err
			}
			return f.startAgent(ctx)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.dockerRun(ctx, t, "--restart", "always", "--network", "blue")
			f.stopDocker(ctx, t)
			f.nothingLeft(ctx, t)
			require.NoError(t, tt.meanwhile())
			_, err := f.StartDocker(ctx, nestedOff...)
			require.NoError(t, err)
			f.awaitDocker(ctx, t, "web")
			f.assertFused(ctx, t, f.dockerPID(ctx, t), f.one(ctx, t))
			f.dockerRemove(ctx, t)
		})
	}
}
