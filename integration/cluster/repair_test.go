package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

const blueBridge = "bf-blue"

// TestIntegrationClusterQuiet lets connections be silent until the pods doubt what
// they know of each other (moby#52661): traffic passes all the same afterwards.
func TestIntegrationClusterQuiet(t *testing.T) {
	ctx, r := open(t)
	web, db, flows := pair(ctx, t, r)
	for _, h := range []*hyper{r.a, r.b} { // what is learned is forgotten soon; nothing may rest on that
		require.NoError(t, runAll(ctx, h.Net, "ip link set "+blueBridge+" type bridge ageing_time 100"))
	}
	for i, f := range flows {
		require.NoError(t, f.proc.Signal(ctx, syscall.SIGSTOP), "flow %d", i)
	}
	goStale(ctx, t, r.a, "web", db)
	goStale(ctx, t, r.b, "db", web)
	for i, f := range flows {
		require.NoError(t, f.proc.Signal(ctx, syscall.SIGCONT), "flow %d", i)
	}
	allAdvance(ctx, t, flows, "after silence")

	t.Run("pods forget each other", func(t *testing.T) {
		inPod(ctx, t, r.a, "web", "ip", "neigh", "flush", "dev", "eth0")
		inPod(ctx, t, r.b, "db", "ip", "neigh", "flush", "dev", "eth0")
		allAdvance(ctx, t, flows, "after the pods' neighbours are gone")
	})
}

// goStale waits until a pod is no longer sure of another one's MACs.
func goStale(ctx context.Context, t *testing.T, h *hyper, pod string, of site.Attachment) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		dir := "/proc/sys/net/" + family(v6) + "/neigh/eth0/"
		inPod(ctx, t, h, pod, "sh", "-c", "echo 500 >"+dir+"base_reachable_time_ms; echo 0 >"+dir+"delay_first_probe_time")
		inPod(ctx, t, h, pod, "ip", "neigh", "flush", "to", of.Addr(v6), "dev", "eth0") // its timer runs for longer
		inPod(ctx, t, h, pod, "/usr/bin/ping", "-n", "-c", "1", "-W", "5", of.Addr(v6))
		var out string
		err := site.Until(ctx, "a stale neighbour", func(ctx context.Context) (bool, error) {
			res, err := h.vm.RunIn(ctx, pod, "ip", "neigh", "show", of.Addr(v6), "dev", "eth0")
			out = res.Stdout
			return strings.Contains(out, "STALE"), err
		})
		require.NoError(t, err, out)
	}
}

// TestIntegrationClusterDrift takes the kernel's entries away by hand, which the
// daemon puts back and counts while traffic goes on.
func TestIntegrationClusterDrift(t *testing.T) {
	ctx, r := open(t)
	_, db, flows := pair(ctx, t, r)
	untouched := r.b.drift(ctx, t)
	vx := strings.TrimSpace(strings.Split(onHost(ctx, t, r.a, "ip", "-o", "link", "show", "type", "vxlan"), ":")[1])
	for _, tt := range []struct{ name, remove, show, want string }{
		{
			"where the MAC is", "bridge fdb del " + db.MAC + " dev " + vx + " dst " + r.b.v4.String() + " self",
			"bridge fdb show dev " + vx, db.MAC + " dst " + r.b.v4.String(),
		},
		{"the bridge's entry", "bridge fdb del " + db.MAC + " dev " + vx + " master", "bridge fdb show dev " + vx, db.MAC + " sticky master"},
		{"neighbour", "ip neigh del " + db.Addr(false) + " dev " + blueBridge, "ip neigh show dev " + blueBridge, db.Addr(false) + " lladdr " + db.MAC + " PERMANENT"},
		{"neighbour of IPv6", "ip neigh del " + db.Addr(true) + " dev " + blueBridge, "ip -6 neigh show dev " + blueBridge, db.Addr(true) + " lladdr " + db.MAC + " PERMANENT"},
		{"the VXLAN link", "ip link del " + vx, "bridge fdb show dev " + vx, db.MAC + " dst " + r.b.v4.String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := r.a.drift(ctx, t)
			require.Contains(t, onHost(ctx, t, r.a, strings.Fields(tt.show)...), tt.want)
			require.NoError(t, runAll(ctx, r.a.Net, tt.remove))
			var out string
			err := site.Until(ctx, "the entry to be back and counted", func(ctx context.Context) (bool, error) {
				res, err := r.a.Net.Run(ctx, strings.Fields(tt.show)...)
				out = res.Stdout
				return strings.Contains(out, tt.want) && r.a.drift(ctx, t) > before, errors.Join(err, res.Err())
			})
			require.NoError(t, err, out)
			allAdvance(ctx, t, flows, "after a repair")
		})
	}
	assert.Equal(t, untouched, r.b.drift(ctx, t), "nothing was done there")
}

// drift returns how many entries a hypervisor's daemon says it has repaired.
func (h *hyper) drift(ctx context.Context, t *testing.T) (n int) {
	t.Helper()
	out := onHost(ctx, t, h, "curl", "-sS", "-m", "5", "--unix-socket", filepath.Join(h.Dir, metricsSocket), "http://brfused/metrics")
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "brfuse_overlay_drift_total{") {
			count, err := strconv.Atoi(value)
			require.NoError(t, err, line)
			n += count
		}
	}
	require.Contains(t, out, "brfuse_overlay_drift_total{")
	return n
}
