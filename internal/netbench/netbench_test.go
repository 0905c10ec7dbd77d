package netbench

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

func request() Request {
	return Request{
		Server: "vm1", Client: "vm2", Network: "blue", Rounds: 2,
		Workloads: []Workload{{Kind: netload.TCPRR, Size: 64, Flows: 1}, {Kind: netload.TCPStream, Size: 1024, Flows: 1}},
	}
}

func newBench(w *world) *Bench { return New(w, w, slog.New(slog.DiscardHandler)) }

// TestRun: of each topology nothing is left when the next is set up, and they take
// turns in being first.
func TestRun(t *testing.T) {
	w, n := newWorld(), &notes{}
	done, err := newBench(w).Run(t.Context(), request(), n)
	require.NoError(t, err)
	assert.Equal(t, native, done.NativeAddress)
	assert.Empty(t, w.left())
	var order []string
	for _, s := range n.samples {
		order = append(order, s.Topology+" "+s.Workload)
	}
	assert.Equal(t, []string{
		"native tcp_rr/64", "native tcp_stream/1024", "nat tcp_rr/64", "nat tcp_stream/1024", "fused tcp_rr/64", "fused tcp_stream/1024",
		"nat tcp_rr/64", "nat tcp_stream/1024", "fused tcp_rr/64", "fused tcp_stream/1024", "native tcp_rr/64", "native tcp_stream/1024",
	}, order)
	assert.Equal(t, "0 look for an address of vm1 that vm2 reaches", n.steps[0])
	assert.Equal(t, "11 round 2 of 2: native, tcp_stream/1024", n.steps[len(n.steps)-1])

	all := strings.Join(w.did, "\n")
	first, rest, _ := strings.Cut(all, "close vm")
	assert.Equal(t, `open vm1 native own=invalid IP peer=invalid IP
open vm2 native own=invalid IP peer=invalid IP
serve vm1
reach [198.51.100.7 192.0.2.1]:4711 from vm2
`, first)
	assert.Contains(t, rest, `open vm1 nat own=192.0.2.1 peer=invalid IP
open vm2 nat own=invalid IP peer=192.0.2.1
serve vm1
run vm2 to 192.0.2.1:4711, tcp_rr reverse=false
run vm2 to 192.0.2.1:4711, tcp_stream reverse=true
`)
	assert.Contains(t, rest, `serve vm1
attach vm1 /proc/7/ns/net blue
attach vm2 /proc/7/ns/net blue
run vm2 to 10.1.0.2:4711, tcp_rr reverse=false
run vm2 to 10.1.0.2:4711, tcp_stream reverse=true
detach pod in vm`)
}

// TestRunFails at each thing that is done, and leaves nothing.
func TestRunFails(t *testing.T) {
	for _, at := range []string{
		"open vm1 native", "open vm2 native", "serve vm1", "reach", "open vm1 nat", "open vm2 nat", "open vm1 fused", "open vm2 fused",
		"attach vm1", "attach vm2", "run vm2",
	} {
		t.Run(at, func(t *testing.T) {
			w := newWorld()
			w.fail = at
			b := newBench(w)
			_, err := b.Run(t.Context(), request(), &notes{})
			require.ErrorIs(t, err, errFake)
			assert.Empty(t, w.left())
			assert.Empty(t, b.busy)
		})
	}
}

// TestRunIsCancelled at each thing that is done.
func TestRunIsCancelled(t *testing.T) {
	for _, at := range []string{"run vm2 to 192", "attach vm2", "run vm2 to 10"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.at = func(what string) {
				if strings.HasPrefix(what, at) {
					cancel()
				}
			}
			_, err := newBench(w).Run(ctx, request(), &notes{})
			require.ErrorIs(t, err, context.Canceled)
			assert.Empty(t, w.left())
		})
	}
}

// TestWatcherGoesAway, as a client does that is killed.
func TestWatcherGoesAway(t *testing.T) {
	w := newWorld()
	_, err := newBench(w).Run(t.Context(), request(), &notes{err: errFake})
	require.ErrorIs(t, err, errFake)
	assert.Empty(t, w.left())
}

func TestCloseFails(t *testing.T) {
	w := newWorld()
	w.fail = "close vm1"
	_, err := newBench(w).Run(t.Context(), request(), &notes{})
	require.ErrorIs(t, err, errFake)
	assert.Equal(t, "vm1 native", w.left(), "and the other vm's is closed")

	w = newWorld()
	w.fail = "detach pod in vm1"
	_, err = newBench(w).Run(t.Context(), request(), &notes{})
	require.ErrorIs(t, err, errFake)
	assert.Equal(t, "pod in vm1", w.left(), "and the other pod is detached, and both vms' are closed")
}

// TestDetachHangs: places are closed when the time to detach is over.
func TestDetachHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		req := request()
		req.Topologies = []string{Fused}
		_, err := New(w, hanging{w}, slog.New(slog.DiscardHandler)).Run(t.Context(), req, &notes{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, "pod in vm1, pod in vm2", w.left(), "the places are closed")
	})
}

// hanging detaches nothing until ctx ends.
type hanging struct{ *world }

func (hanging) Detach(ctx context.Context, _ vnic.ID) (vnic.Attachment, error) {
	<-ctx.Done()
	return vnic.Attachment{}, ctx.Err()
}

func TestOneBenchInAVM(t *testing.T) {
	w := newWorld()
	b := newBench(w)
	tried := false
	w.at = func(what string) {
		if tried || !strings.HasPrefix(what, "run") {
			return
		}
		tried = true
		req := request()
		req.Server, req.Client = "vm3", "vm1"
		_, err := b.Run(t.Context(), req, &notes{})
		require.ErrorIs(t, err, vnic.ErrInUse)
		assert.ErrorContains(t, err, "vm vm1 is being measured by another bench")
	}
	_, err := b.Run(t.Context(), request(), &notes{})
	require.NoError(t, err)
	assert.True(t, tried)
}

func TestNothingReached(t *testing.T) {
	w := newWorld()
	w.reach = nil
	_, err := newBench(w).Run(t.Context(), request(), &notes{})
	require.ErrorIs(t, err, vnic.ErrUnsupported)
	require.ErrorContains(t, err, "vm vm2 reaches vm vm1 by none of its addresses [198.51.100.7 192.0.2.1], TCP port 4711")
	require.ErrorContains(t, err, "--topologies fused")
	assert.Empty(t, w.left())

	req := request()
	req.Topologies = []string{Fused}
	done, err := newBench(w).Run(t.Context(), req, &notes{})
	require.NoError(t, err)
	assert.False(t, done.NativeAddress.IsValid())
}

func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*Request)
		want  string
	}{
		{"vm", func(r *Request) { r.Server = "" }, "vm name"},
		{"same vm", func(r *Request) { r.Client = "vm1" }, "vm and peer are both vm1; name two VMs"},
		{"topology", func(r *Request) { r.Topologies = []string{"macvlan"} }, `topology "macvlan" is none of native, nat, fused`},
		{"topology twice", func(r *Request) { r.Topologies = []string{Native, Native} }, "topology native is named twice"},
		{"rounds", func(r *Request) { r.Rounds = 1001 }, "rounds 1001 are not in 1-1000"},
		{"short", func(r *Request) { r.Time = time.Millisecond }, "time 1ms is not in 50ms-1m0s"},
		{"negative", func(r *Request) { r.Time = -time.Second }, "time -1s"},
		{"long", func(r *Request) { r.Time = time.Hour }, "time 1h0m0s"},
		{"workloads", func(r *Request) { r.Workloads = make([]Workload, 65) }, "65 workloads are more than 64"},
		{"workload twice", func(r *Request) { r.Workloads = append(r.Workloads, r.Workloads[0]) }, "workload tcp_rr/64 is named twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			tt.spoil(&r)
			_, err := r.Complete()
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.ErrorContains(t, err, tt.want)
		})
	}
	r, err := Request{Server: "vm1", Client: "vm2"}.Complete()
	require.NoError(t, err)
	assert.Equal(t, 45, r.Samples())
	assert.Equal(t, time.Second, r.Time)
}

func TestParseWorkload(t *testing.T) {
	for _, tt := range []struct {
		text string
		want netload.Spec // of 300 ms; zero: refused
	}{
		{"tcp_rr/1024", netload.Spec{Kind: netload.TCPRR, Size: 1024, Flows: 1}},
		{"tcp_stream/16384/flows=4", netload.Spec{Kind: netload.TCPStream, Size: 16384, Flows: 4, Reverse: true}},
		{"udp_stream_rx/64", netload.Spec{Kind: netload.UDPStream, Size: 64, Flows: 1}},
		{"tcp_crr/64", netload.Spec{Kind: netload.TCPCRR, Size: 64, Flows: 1}},
		{"tcp_rr_rx/64", netload.Spec{}},
		{"tcp_rr", netload.Spec{}},
		{"smoke/64", netload.Spec{}},
		{"udp_stream/1", netload.Spec{}},
		{"tcp_rr/x", netload.Spec{}},
		{"tcp_rr/64/4", netload.Spec{}},
		{"tcp_rr/64/flows=0", netload.Spec{}},
		{"tcp_rr/64/flows=100", netload.Spec{}},
		{"tcp_rr/64/flows=2/x", netload.Spec{}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			w, err := ParseWorkload(tt.text)
			if tt.want.Size == 0 {
				require.ErrorIs(t, err, vnic.ErrInvalid)
				assert.ErrorContains(t, err, "give KIND[_rx]/SIZE[/flows=N] such as tcp_rr/1024")
				return
			}
			require.NoError(t, err)
			tt.want.Duration, tt.want.WarmUp = 300*time.Millisecond, 100*time.Millisecond
			assert.Equal(t, tt.want, w.spec(300*time.Millisecond))
			assert.Equal(t, tt.text, w.String())
		})
	}
}

func FuzzParseWorkload(f *testing.F) {
	f.Add("tcp_stream_rx/16384/flows=4")
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWorkload(s)
		if err != nil {
			require.ErrorIs(t, err, vnic.ErrInvalid)
			return
		}
		again, err := ParseWorkload(w.String())
		require.NoError(t, err)
		assert.Equal(t, w, again)
	})
}

func TestToSample(t *testing.T) {
	spec := netload.Spec{Kind: netload.UDPStream, Size: 64}
	s, err := toSample(good(spec), spec)
	require.NoError(t, err)
	assert.Equal(t, map[string]uint64{"server:eth0": 3}, s.Drops)
	for name, want := range map[string]float64{
		"msg/s": 1000, "B/s": 1024000, "loss": 100.0 / 1100, "retrans": 2, "drops": 3,
		"guest-user-cpu": 0.1, "guest-softirq-cpu": 0.2, "guest-system-cpu": 0.3, "guest-irq-cpu": 0.1, "guest-cpu": 0.7,
		"guest-ns/msg": 700_000, "guest-ns/KiB": 700_000,
	} {
		assert.InDelta(t, want, s.Metrics[name], want*1e-6, name)
	}
	assert.Len(t, s.Metrics, 12)

	spec.Kind = netload.TCPRR
	s, err = toSample(good(spec), spec)
	require.NoError(t, err)
	assert.InDelta(t, 1e6, s.Metrics["p99.9-ns"], 1e3)
	assert.NotEmpty(t, s.Latency)
	assert.NotContains(t, s.Metrics, "loss")

	_, err = toSample(guestlink.BenchResult{Elapsed: time.Second, Sent: 5}, spec)
	require.ErrorContains(t, err, "no message arrived within 0s, 5 were sent")
}

func TestLeftovers(t *testing.T) {
	assert.Equal(t, []vnic.ID{"0000000002"}, Leftovers([]vnic.Attachment{
		{ID: "0000000001"},
		{ID: "0000000002", Request: vnic.Request{Labels: map[string]string{Label: "x"}}},
		{ID: "0000000003", Request: vnic.Request{Manager: "cni", Labels: map[string]string{Label: "a guest may say so"}}},
	}))
}
