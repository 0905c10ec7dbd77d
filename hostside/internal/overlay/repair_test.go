package overlay_test

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/overlay"
)

// entries returns the entries of the overlay's making, sorted, as ip and bridge tell them.
func entries(ns *netnstest.NS) []string {
	out := try(ns, "bridge", "fdb", "show", "brport", vxlan) + try(ns, "ip", "neigh", "show", "nud", "permanent")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, "master bf-blue permanent") || l == "" })
	slices.Sort(lines)
	return lines
}

// try returns what a program prints, and nothing when it fails.
func try(ns *netnstest.NS, name string, args ...string) string {
	var out []byte
	if ns.Do(func() (err error) {
		out, err = exec.Command(name, args...).Output() //nolint:noctx // it takes milliseconds, and may outlast the test
		return err
	}) != nil {
		return ""
	}
	return string(out)
}

// settles waits until entries are as they were and the drift is as it should be.
func settles(t *testing.T, ns *netnstest.NS, o *overlay.Overlay, want []string, drift overlay.Drift) {
	t.Helper()
	if !assert.Eventually(t, func() bool {
		return slices.Equal(want, entries(ns)) && o.Stats().Drift == drift
	}, 20*time.Second, time.Millisecond) {
		assert.Equal(t, want, entries(ns))
		assert.Equal(t, drift, o.Stats().Drift)
	}
}

// twoRemotes returns remotes with an address of each family.
func twoRemotes() []overlay.Remote {
	remotes := many(1, 2)
	for i := range remotes {
		remotes[i].Addresses = append(remotes[i].Addresses, netip.MustParseAddr("fd00:9::1").Next())
		for range i {
			remotes[i].Addresses[1] = remotes[i].Addresses[1].Next()
		}
	}
	return remotes
}

// TestIntegrationRepairs changes by hand what the overlay made.
func TestIntegrationRepairs(t *testing.T) {
	const mac = "02:01:00:00:00:01"
	for _, tt := range []struct {
		name  string
		does  string // programs, one a line
		drift overlay.Drift
	}{
		{"tunnel deleted", "bridge fdb del " + mac + " dev bfx-77 self", overlay.Drift{Missing: 1}},
		{"port deleted", "bridge fdb del " + mac + " dev bfx-77 master", overlay.Drift{Missing: 1}},
		{"both deleted", "bridge fdb del " + mac + " dev bfx-77 self master", overlay.Drift{Missing: 2}},
		{"neighbour deleted", "ip neigh del 10.0.0.1 dev bf-blue", overlay.Drift{Missing: 1}},
		{"ipv6 neighbour deleted", "ip neigh del fd00:9::2 dev bf-blue", overlay.Drift{Missing: 1}},
		{"tunnel led astray", "bridge fdb replace " + mac + " dev bfx-77 self dst 203.0.113.1", overlay.Drift{Wrong: 1}},
		{"tunnel to another port", "bridge fdb replace " + mac + " dev bfx-77 self dst 192.168.0.1 port 9", overlay.Drift{Wrong: 1}},
		{"port no longer sticky", "bridge fdb replace " + mac + " dev bfx-77 master static", overlay.Drift{Wrong: 1}},
		{"neighbour has another mac", "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 nud permanent dev bf-blue", overlay.Drift{Wrong: 1}},
		{"neighbour may age", "ip neigh replace fd00:9::2 lladdr " + mac + " nud stale dev bf-blue", overlay.Drift{Wrong: 1}},
		{"foreign tunnel", "bridge fdb add 02:00:00:00:00:99 dev bfx-77 self dst 203.0.113.1", overlay.Drift{Foreign: 1}},
		{"default tunnel", "bridge fdb append 00:00:00:00:00:00 dev bfx-77 self dst 203.0.113.1", overlay.Drift{Foreign: 1}},
		{"foreign port", "bridge fdb add 02:00:00:00:00:99 dev bfx-77 master static", overlay.Drift{Foreign: 1}},
		{"foreign neighbour", "ip neigh add 10.9.0.99 lladdr 02:00:00:00:00:99 nud permanent dev bf-blue", overlay.Drift{Foreign: 1}},
		{"all neighbours gone", "ip link set bf-blue down\nip link set bf-blue up", overlay.Drift{Missing: 4}},
		{"link deleted", "ip link del bfx-77", overlay.Drift{Missing: 4}},
		{"link in no bridge", "ip link set bfx-77 nomaster", overlay.Drift{Missing: 2}},
		{"port floods and learns", "bridge link set dev bfx-77 learning on flood on mcast_flood on bcast_flood on neigh_suppress off", overlay.Drift{}},
		{"link down", "ip link set bfx-77 down", overlay.Drift{}},
		{"link with another mtu", "ip link set bfx-77 mtu 1400", overlay.Drift{}},
		{"link learns", "ip link set bfx-77 type vxlan learning", overlay.Drift{Missing: 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns, o := lone(t)
			_, err := o.Replace(t.Context(), vni, twoRemotes())
			require.NoError(t, err)
			want, link := entries(ns), linkShow(ns)
			require.Len(t, want, 8)
			for line := range strings.Lines(tt.does) {
				f := strings.Fields(line)
				ns.Run(f[0], f[1:]...)
			}
			settles(t, ns, o, want, tt.drift)
			assert.Eventually(t, func() bool { return link == linkShow(ns) }, 20*time.Second, time.Millisecond)
			assert.Equal(t, link, linkShow(ns))
		})
	}
}

// linkShow returns how the VXLAN link is set, or nothing when there is none.
func linkShow(ns *netnstest.NS) string {
	f := strings.Fields(try(ns, "ip", "-d", "link", "show", vxlan))
	var set []string
	for i, word := range f {
		switch word {
		case "mtu", "master", "id", "local", "dstport", "ttl", "learning", "flood", "mcast_flood", "bcast_flood", "neigh_suppress", "addrgenmode", "alias":
			set = append(set, word+" "+f[i+1])
		case "nolearning", "udpcsum", "noudp6zerocsumtx", "noudp6zerocsumrx", "<BROADCAST,MULTICAST,UP,LOWER_UP>":
			set = append(set, word)
		}
	}
	return strings.Join(set, "\n")
}
