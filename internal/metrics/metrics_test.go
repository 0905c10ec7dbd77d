package metrics_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/metrics"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// host is a host half with the world's slots. A VM that hangs does so for as long as its
// caller bears it, and a guard that is stuck until the test lets it go.
type host struct {
	*orchestratortest.Conn
	hangs string
	stuck chan struct{} // nil: it is not
}

func (h *host) Free(ctx context.Context, vm string) (free, total int, err error) {
	if vm == h.hangs {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	return h.Conn.Free(ctx, vm)
}

func (h *host) Dropped(context.Context) (map[string]uint64, error) {
	if h.stuck != nil {
		<-h.stuck
	}
	return map[string]uint64{"mac": 7}, nil
}

func (h *host) OverlayDrift() vnic.Drift { return vnic.Drift{Missing: 1, Foreign: 3} }

// answers are the numbers of a name server.
type answers struct{}

func (answers) Stats() map[string]names.Stats {
	bounds := []time.Duration{time.Millisecond, time.Second}
	return map[string]names.Stats{"blue": {
		Records: 2, Queries: map[string]uint64{"NOERROR": 5, "NXDOMAIN": 1}, Forwarded: 2, ForwardFailures: 1, Foreign: 4,
		Own:     names.Histogram{Bounds: bounds, Counts: []uint64{3, 1, 1}, Sum: 9 * time.Second},
		Outside: names.Histogram{Bounds: bounds, Counts: []uint64{0, 0, 0}},
	}}
}

// rig is a daemon's orchestrator with VM vm1 and network blue, and its metrics.
type rig struct {
	t     *testing.T
	world *orchestratortest.World
	host  *host
	store store.Store
	orch  *orchestrator.Orchestrator
	m     *metrics.Metrics
}

// inRig runs a test in a bubble, where time costs none. r.t is the t of the bubble.
func inRig(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, world: orchestratortest.New(), m: metrics.New("v1.2.3")}
		t.Cleanup(r.m.Close)
		pods := make([]string, 20)
		for i := range pods {
			pods[i] = pod(i)
		}
		r.world.Boot("vm1", pods...)
		conn := r.world.Conn()
		r.host, r.store = &host{Conn: conn}, r.m.Store(memstore.New())
		var err error
		r.orch, err = orchestrator.New(t.Context(), orchestrator.Config{
			Store: r.store, Host: conn, Guest: conn, VMs: conn, Observers: []orchestrator.Observer{r.m},
		})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, r.orch.Close()) })
		conn.Notify(r.orch.Notify)
		r.addVM("vm1")
		_, err = r.orch.CreateNetwork(t.Context(), vnic.Network{
			Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		})
		require.NoError(t, err)
		require.NoError(t, r.m.Ask(metrics.Parts{Orch: r.orch, Host: r.host, Names: answers{}, Shared: r.store}))
		synctest.Wait()
		test(r)
	})
}

func pod(i int) string { return fmt.Sprint("pod", i) }

func (r *rig) addVM(name string) {
	r.t.Helper()
	require.NoError(r.t, r.orch.AddVM(r.t.Context(), vnic.VM{Name: name, QMP: "/run/" + name + ".qmp", Channel: "/run/" + name + ".agent"}))
}

func (r *rig) attach(pod string) (vnic.Attachment, error) {
	return r.orch.Attach(r.t.Context(), vnic.Request{Key: vnic.Key{VM: "vm1", Pod: pod, Interface: "eth0"}, Network: "blue"})
}

// text is what a scrape answers.
func (r *rig) text() string {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(r.t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

// scrape returns brfuse's samples by what Prometheus calls them, without the prefix.
func (r *rig) scrape() map[string]string {
	r.t.Helper()
	synctest.Wait() // some numbers come from a watch of the store
	samples := map[string]string{}
	for line := range strings.Lines(r.text()) {
		if rest, ok := strings.CutPrefix(line, "brfuse_"); ok {
			i := strings.LastIndex(rest, " ")
			samples[rest[:i]] = strings.TrimSpace(rest[i:])
		}
	}
	return samples
}

// of returns those of some metrics, as sorted lines.
func of(samples map[string]string, metrics ...string) string {
	var lines []string
	for name, v := range samples {
		if base, _, _ := strings.Cut(name, "{"); slices.Contains(metrics, base) {
			lines = append(lines, name+" "+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestOperations: steps and outcomes are counted, those of a failing attach too.
func TestOperations(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		a, err := r.attach("pod0")
		require.NoError(t, err)
		_, err = r.orch.Detach(t.Context(), a.ID)
		require.NoError(t, err)
		r.world.Before("plug", func(context.Context) error { return fmt.Errorf("plug: %w", &vnic.NoSlotError{VM: "vm1"}) })
		_, err = r.attach("pod1")
		require.ErrorIs(t, err, vnic.ErrNoSlot)
		_, err = r.orch.Attach(t.Context(), vnic.Request{})
		require.ErrorIs(t, err, vnic.ErrInvalid)

		got := r.scrape()
		assert.Equal(t, `attach_duration_seconds_count{outcome="invalid",step="total"} 1
attach_duration_seconds_count{outcome="no_slot",step="plug"} 1
attach_duration_seconds_count{outcome="no_slot",step="total"} 1
attach_duration_seconds_count{outcome="ok",step="appear"} 1
attach_duration_seconds_count{outcome="ok",step="configure"} 1
attach_duration_seconds_count{outcome="ok",step="lease"} 2
attach_duration_seconds_count{outcome="ok",step="move"} 1
attach_duration_seconds_count{outcome="ok",step="plug"} 1
attach_duration_seconds_count{outcome="ok",step="prepare"} 2
attach_duration_seconds_count{outcome="ok",step="release"} 1
attach_duration_seconds_count{outcome="ok",step="total"} 1
attach_duration_seconds_count{outcome="ok",step="unplug"} 1`, of(got, "attach_duration_seconds_count"))
		assert.Equal(t, `attaches_total{outcome="invalid"} 1
attaches_total{outcome="no_slot"} 1
attaches_total{outcome="ok"} 1`, of(got, "attaches_total"))
		assert.Equal(t, `detach_duration_seconds_count{outcome="ok",step="release"} 1
detach_duration_seconds_count{outcome="ok",step="total"} 1
detach_duration_seconds_count{outcome="ok",step="unplug"} 1
detaches_total{outcome="ok"} 1`, of(got, "detach_duration_seconds_count", "detaches_total"))
	})
}

// TestMoveFails: the guest tells of no parts then.
func TestMoveFails(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		r.world.Before("move", func(context.Context) error { return fmt.Errorf("gone: %w", vnic.ErrAgentUnavailable) })
		_, err := r.attach("pod0")
		require.ErrorIs(t, err, vnic.ErrAgentUnavailable)
		got := r.scrape()
		assert.Equal(t, "1", got[`attach_duration_seconds_count{outcome="agent_unavailable",step="move"}`])
		assert.NotContains(t, got, `attach_duration_seconds_count{outcome="ok",step="move"}`)
	})
}

func TestLevels(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		require.NoError(t, r.orch.SetPool(t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 2, High: 4}))
		time.Sleep(time.Minute) //nolint:forbidigo // a fake minute, for the pool to be filled
		synctest.Wait()
		_, err := r.attach("pod0")
		require.NoError(t, err)
		_, err = r.orch.SetService(t.Context(), vnic.Service{Network: "blue", Protocol: vnic.TCP, Port: 8080, Target: 80, Pod: "pod0"})
		require.NoError(t, err)
		_, err = r.store.Update(t.Context(), func(tx store.Tx) error {
			return tx.Put(fabric.HypervisorPrefix+"a", []byte(`{"name":"a"}`))
		})
		require.NoError(t, err)
		time.Sleep(time.Minute) //nolint:forbidigo // as above
		synctest.Wait()

		got := r.scrape()
		assert.Equal(t, `build_info{version="v1.2.3"} 1
channel_up{vm="vm1"} 1
free_addresses{family="ipv4",network="blue"} 252
free_addresses{family="ipv6",network="blue"} 1.8446744073709552e+19
guard_dropped_packets_total{reason="mac"} 7
hypervisors{state="alive"} 0
hypervisors{state="dead"} 1
hypervisors{state="released"} 0
leases{family="ipv4",network="blue"} 1
leases{family="ipv6",network="blue"} 1
overlay_drift_total{kind="foreign"} 3
overlay_drift_total{kind="missing"} 1
overlay_drift_total{kind="wrong"} 0
pool_hits_total{network="blue",vm="vm1"} 1
pool_misses_total{network="blue",vm="vm1"} 0
pool_vnics{network="blue",state="filling",vm="vm1"} 0
pool_vnics{network="blue",state="in_use",vm="vm1"} 1
pool_vnics{network="blue",state="parked",vm="vm1"} 2
services_ready{service="8080-tcp"} 1
slots{state="free",vm="vm1"} 28
slots{state="used",vm="vm1"} 3`, of(got, "build_info", "channel_up", "free_addresses", "guard_dropped_packets_total", "hypervisors",
			"leases", "overlay_drift_total", "pool_hits_total", "pool_misses_total", "pool_vnics", "services_ready", "slots"))
		for name, v := range got {
			if strings.HasPrefix(name, "scrape_source_up") {
				assert.Equal(t, "1", v, name)
			}
		}

		r.world.StopAgent("vm1")
		r.world.Kill("vm1")
		synctest.Wait()
		got = r.scrape()
		assert.Equal(t, `channel_up{vm="vm1"} 0`, of(got, "channel_up", "slots"), "a vm that is gone has no slots")
		assert.Equal(t, "1", got[`scrape_source_up{source="vms"}`], "which is no failure")
	})
}

func TestDNS(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		got := r.scrape()
		assert.Equal(t, `dns_discarded_total{network="blue",reason="busy"} 0
dns_discarded_total{network="blue",reason="foreign"} 4
dns_discarded_total{network="blue",reason="malformed"} 0
dns_forward_failures_total{network="blue"} 1
dns_forwarded_total{network="blue"} 2
dns_queries_total{network="blue",rcode="NOERROR"} 5
dns_queries_total{network="blue",rcode="NXDOMAIN"} 1
dns_query_duration_seconds_bucket{network="blue",source="outside",le="+Inf"} 0
dns_query_duration_seconds_bucket{network="blue",source="outside",le="0.001"} 0
dns_query_duration_seconds_bucket{network="blue",source="outside",le="1"} 0
dns_query_duration_seconds_bucket{network="blue",source="own",le="+Inf"} 5
dns_query_duration_seconds_bucket{network="blue",source="own",le="0.001"} 3
dns_query_duration_seconds_bucket{network="blue",source="own",le="1"} 4
dns_records{network="blue"} 2`, of(got, "dns_discarded_total", "dns_forward_failures_total", "dns_forwarded_total",
			"dns_queries_total", "dns_query_duration_seconds_bucket", "dns_records"))
		assert.Equal(t, "9", got[`dns_query_duration_seconds_sum{network="blue",source="own"}`])
	})
}

// TestSlowSources: what is silent is missing in a scrape, the rest is there in time, and
// an attach goes on.
func TestSlowSources(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		r.world.Boot("vm2")
		r.addVM("vm2")
		synctest.Wait()
		r.host.hangs, r.host.stuck = "vm2", make(chan struct{})
		attached := make(chan error, 1)
		time.AfterFunc(500*time.Millisecond, func() {
			start := time.Now()
			_, err := r.attach("pod0")
			assert.Zero(t, time.Since(start), "the attach waits for nothing")
			attached <- err
		})
		for range 2 { // the second finds the guard still stuck
			start := time.Now()
			got := r.scrape()
			assert.LessOrEqual(t, time.Since(start), 2*time.Second)
			assert.Equal(t, `channel_up{vm="vm1"} 1
channel_up{vm="vm2"} 1
scrape_source_up{source="dns"} 1
scrape_source_up{source="guard"} 0
scrape_source_up{source="hypervisors"} 1
scrape_source_up{source="networks"} 1
scrape_source_up{source="overlay"} 1
scrape_source_up{source="pools"} 1
scrape_source_up{source="services"} 1
scrape_source_up{source="vms"} 0`, of(got, "channel_up", "guard_dropped_packets_total", "scrape_source_up"))
			assert.Contains(t, got, `slots{state="free",vm="vm1"}`)
			assert.NotContains(t, got, `slots{state="free",vm="vm2"}`)
		}
		require.NoError(t, <-attached)
		r.host.hangs = ""
		close(r.host.stuck)
		synctest.Wait()
		got := r.scrape()
		assert.Equal(t, "7", got[`guard_dropped_packets_total{reason="mac"}`])
		assert.Equal(t, "1", got[`scrape_source_up{source="vms"}`])
	})
}

// TestTwoScrapesAtOnce: both have all.
func TestTwoScrapesAtOnce(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		r.host.stuck = make(chan struct{})
		time.AfterFunc(time.Second, func() { close(r.host.stuck) })
		texts := make(chan string, 2)
		for range 2 {
			go func() { texts <- r.text() }()
		}
		for range 2 {
			assert.Contains(t, <-texts, `brfuse_guard_dropped_packets_total{reason="mac"} 7`)
		}
	})
}

// TestPodsAreNoLabels: however many pods there are, the series are the same.
func TestPodsAreNoLabels(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		cycle := func(name string) {
			a, err := r.attach(name)
			require.NoError(t, err)
			_, err = r.orch.DetachKey(t.Context(), a.Request.Key)
			require.NoError(t, err)
		}
		cycle(pod(0))
		r.scrape()
		before := r.scrape()
		for i := range 20 {
			cycle(pod(i))
		}
		after := r.scrape()
		assert.Equal(t, "21", after[`attaches_total{outcome="ok"}`])
		assert.Equal(t, "0", after[`leases{family="ipv4",network="blue"}`])
		for name := range after {
			assert.Contains(t, before, name)
			assert.NotContains(t, name, "pod0")
		}
	})
}

func TestLint(t *testing.T) {
	inRig(t, func(r *rig) {
		t := r.t
		_, err := r.attach("pod0")
		require.NoError(t, err)
		var own []string
		for line := range strings.Lines(r.text()) {
			if strings.Contains(line, "brfuse_") {
				own = append(own, line)
			}
		}
		problems, err := promlint.New(strings.NewReader(strings.Join(own, ""))).Lint()
		require.NoError(t, err)
		assert.Empty(t, problems)
	})
}
