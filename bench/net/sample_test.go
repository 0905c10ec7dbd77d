package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

// guest is what a guest counted in half a second.
var guest = netcost.Cost{Elapsed: time.Second / 2, Counters: netcost.Counters{
	CPU:        netcost.CPU{User: 0.05, System: 0.1, Softirq: 0.2, IRQ: 0.05, Idle: 0.1},
	CPUs:       []netcost.CPU{{User: 0.05, System: 0.1, Softirq: 0.2, IRQ: 0.05, Idle: 0.1}},
	Interrupts: map[string]uint64{"virtio1-input.0": 100, "virtio1-output.0": 20, "LOC": 500},
	Softirqs:   map[string]uint64{"NET_RX": 200, "NET_TX": 10, "TIMER": 40},
	Backlog:    netcost.Backlog{Dropped: 3},
	Devices: []netcost.Device{
		{Namespace: "pod", Name: "eth0", RxDrops: 1, QdiscDrops: 2}, {Namespace: "guest", Name: "eth0", TxPackets: 7},
	},
	Namespaces: []netcost.Protocol{{Namespace: "pod", TCP: netcost.TCP{Retransmitted: 4}, UDP: netcost.UDP{ReceiveBuffer: 5}}},
}}

var hypervisors = netcost.Cost{Elapsed: time.Second / 2, Counters: netcost.Counters{
	CPU:        netcost.CPU{Softirq: 0.1},
	Processes:  []netcost.Process{{Threads: map[string]float64{"vcpu": 0.4, "main": 0.1}, Vhost: 0.05}},
	Devices:    []netcost.Device{{Namespace: "host", Name: "tap", TxDrops: 6}},
	Namespaces: []netcost.Protocol{{Namespace: "host", TCP: netcost.TCP{Retransmitted: 1}}},
}}

func TestSampleOfStream(t *testing.T) {
	res := netload.Result{
		Spec: netload.Spec{Kind: netload.UDPStream, Size: 64}, Elapsed: time.Second / 2,
		Sent: 1250, Received: 1000, Lost: 250, Bytes: 64000,
	}
	s, err := sample(res, costs{guests: map[string]netcost.Cost{"": guest}, hosts: hypervisors})
	require.NoError(t, err)
	want := map[string]float64{
		result.Throughput: 128000, result.Rate: 2000, result.Loss: 0.2,
		result.GuestUser: 0.1, result.GuestSystem: 0.2, result.GuestSoftirq: 0.4, result.GuestIRQ: 0.1, result.GuestCPU: 0.8,
		result.GuestTime: 400_000, result.GuestTimeKiB: 6_400_000,
		result.Interrupts: 240, result.Softirqs: 500, result.NetRx: 400, result.NetTx: 20,
		result.QEMUCPU: 1, result.VCPUs: 0.8, result.VhostCPU: 0.1, result.HostSoftirq: 0.2, result.QEMUTime: 500_000,
		result.Retransmits: 5, result.Drops: 17,
	}
	assert.InDeltaMapValues(t, want, s.Metrics, 1e-6)
	assert.Equal(t, map[string]uint64{"pod:eth0": 3, "guest:backlog": 3, "pod:udp-buffer": 5, "host:tap": 6}, s.Drops)
	assert.Empty(t, s.Latency)
}

// TestSampleOfPair has two guests, which are summed up.
func TestSampleOfPair(t *testing.T) {
	h := netload.NewHistogram()
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Microsecond)
	}
	res := netload.Result{Spec: netload.Spec{Kind: netload.TCPRR, Size: 64}, Elapsed: time.Second / 2, Sent: 1000, Received: 1000, Latency: h}
	s, err := sample(res, costs{guests: map[string]netcost.Cost{"": guest, "client-": guest}, hosts: hypervisors})
	require.NoError(t, err)
	assert.InDelta(t, 1.6, s.Metrics[result.GuestCPU], 1e-9)
	assert.InDelta(t, 800_000, s.Metrics[result.GuestTime], 1e-3)
	assert.InEpsilon(t, 500_000, s.Metrics[result.P50], 0.01)
	assert.InEpsilon(t, 999_000, s.Metrics[result.P999], 0.01)
	assert.NotContains(t, s.Metrics, result.Throughput)
	assert.NotContains(t, s.Metrics, result.Loss)
	assert.Equal(t, uint64(5), s.Drops["client-pod:udp-buffer"])
	var back netload.Histogram
	require.NoError(t, back.UnmarshalText([]byte(s.Latency)))
	assert.Equal(t, uint64(1000), back.Count())
	w := result.NewWriter(t.Output())
	s.Rig, s.Topology, s.Workload, s.Round = result.Pair, result.Native, result.RoundTrip, 1
	require.NoError(t, w.Sample(s), "it is one that can be read")
}

func TestSampleOfNothing(t *testing.T) {
	_, err := sample(netload.Result{Elapsed: time.Second}, costs{})
	require.EqualError(t, err, "nothing was received")
}

func TestRead(t *testing.T) {
	cases := []struct{ name, raw, want string }{
		{"none", "", "there are none"},
		{"no JSON", "{", "unexpected end of JSON input"},
		{"error", `{"error":"no such namespace"}`, "no such namespace"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(json.RawMessage(c.raw))
			require.EqualError(t, err, c.want)
		})
	}
	raw, err := json.Marshal(guest)
	require.NoError(t, err)
	c, err := read(raw)
	require.NoError(t, err)
	assert.Equal(t, guest.Devices, c.Devices)
	assert.InDelta(t, guest.CPU.Softirq, c.CPU.Softirq, 1e-9)
}
