package engines

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// nestedOff keeps dockerd from making its own bridge and rules, so that what is
// there would be brfuse's doing.
var nestedOff = []string{"--bridge=none", "--iptables=false", "--ip6tables=false"}

// TestIntegrationDocker runs containers on networks of the Docker driver.
func TestIntegrationDocker(t *testing.T) {
	ctx, f := newFixture(t, site.Options{})
	_, err := f.StartDocker(ctx, nestedOff...)
	require.NoError(t, err)
	require.NoError(t, f.LoadDocker(ctx))
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--ipam-driver", "brfuse", "--ipam-opt", "network=blue", "-o", "network=blue", "blue")
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--ipam-driver", "null", "-o", "network=green", "green")

	t.Run("run", func(t *testing.T) {
		out := f.must(ctx, t, "docker", "run", "--rm", "--network", "blue", Busybox, "sh", "-c", "ip -o addr; ip route; ping -c 1 -W 5 "+blue4+"1")
		assert.Contains(t, out, "eth0    inet "+blue4)
		assert.Contains(t, out, "default via "+blue4+"1 dev eth0")
		assert.Contains(t, out, "1 packets received")
		f.nothingLeft(ctx, t)
	})
	t.Run("two networks", func(t *testing.T) { testDockerTwo(ctx, t, f) })
	t.Run("wanted addresses", func(t *testing.T) { testDockerWanted(ctx, t, f) })
	t.Run("published port", func(t *testing.T) {
		f.must(ctx, t, "docker", "run", "-d", "--name", "web", "--network", "blue", "-p", "18081:80", Busybox, "httpd", "-f", "-p", "80", "-h", "/etc")
		f.fetch(ctx, t, "http://"+blue4+"1:18081/passwd")
		f.must(ctx, t, "docker", "rm", "-f", "web")
		f.nothingLeft(ctx, t)
	})
	t.Run("shared namespace", func(t *testing.T) {
		f.must(ctx, t, "docker", "run", "-d", "--name", "web", "--network", "blue", Busybox, "sleep", "100000")
		links := f.must(ctx, t, "docker", "exec", "web", "ip", "-o", "link")
		assert.Equal(t, links, f.must(ctx, t, "docker", "run", "--rm", "--network", "container:web", Busybox, "ip", "-o", "link"))
		f.one(ctx, t)
		f.must(ctx, t, "docker", "rm", "-f", "web")
		f.nothingLeft(ctx, t)
	})
	t.Run("attach", func(t *testing.T) { testAttachDocker(ctx, t, f) })
	t.Run("ipv6", func(t *testing.T) { testDockerIPv6(ctx, t, f) })
	t.Run("internal", func(t *testing.T) { testDockerInternal(ctx, t, f) })
	t.Run("changed vNIC", func(t *testing.T) { testDockerChanged(ctx, t, f) })
	t.Run("dockerd", func(t *testing.T) { testDockerRestarts(ctx, t, f) })
	f.notNested(ctx, t)
	f.must(ctx, t, "docker", "network", "rm", "blue", "green")
	f.nothingLeft(ctx, t)
}

// testDockerTwo connects a running container to a second network, and back.
func testDockerTwo(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	f.must(ctx, t, "docker", "run", "-d", "--name", "web", "--network", "blue", Busybox, "sleep", "100000")
	pid := f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "web")
	a := f.one(ctx, t)
	f.assertFused(ctx, t, pid, a)
	f.must(ctx, t, "docker", "network", "connect", "green", "web")
	list, err := f.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 2, "a vNIC a network")
	for _, a := range list {
		f.assertFused(ctx, t, pid, a)
	}
	assert.Equal(t, 3, strings.Count(f.ipIn(ctx, t, pid, "-o", "link"), "\n"), "lo, eth0, eth1: no docker_gwbridge")
	inspected := f.must(ctx, t, "docker", "network", "inspect", "blue")
	assert.Contains(t, inspected, a.MAC)
	assert.Contains(t, inspected, a.Addr(false)+"/24")
	f.notNested(ctx, t)
	f.must(ctx, t, "docker", "network", "disconnect", "green", "web")
	assert.Equal(t, a.ID, f.one(ctx, t).ID)
	f.answers(ctx, t, a.Addr(false))
	f.must(ctx, t, "docker", "rm", "-f", "web")
	f.nothingLeft(ctx, t)
}

// testDockerWanted asks for an address and a MAC.
func testDockerWanted(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	f.must(ctx, t, "docker", "network", "create", "-d", "brfuse", "--subnet", green4+"0/24", "--gateway", green4+"1", "-o", "network=green", "plain")
	f.must(ctx, t, "docker", "run", "-d", "--name", "web", "--network", "plain", "--ip", green4+"99", "--mac-address", "02:11:22:33:44:66", Busybox, "sleep", "100000")
	a := f.one(ctx, t)
	assert.Equal(t, "02:11:22:33:44:66", a.MAC)
	assert.Equal(t, green4+"99", a.Addr(false))
	f.assertFused(ctx, t, f.must(ctx, t, "docker", "inspect", "-f", "{{.State.Pid}}", "web"), a)
	f.must(ctx, t, "docker", "rm", "-f", "web")
	f.must(ctx, t, "docker", "network", "rm", "plain")
	f.nothingLeft(ctx, t)
}
