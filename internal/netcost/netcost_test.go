package netcost

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestSince(t *testing.T) {
	begin := time.Now()
	earlier := Snapshot{Taken: begin, Counters: Counters{
		CPU: CPU{User: 1, Idle: 5}, CPUs: []CPU{{User: 1, Idle: 5}, {}},
		Interrupts:      map[string]uint64{"LOC": 10, "virtio0-input.0": 5, "same": 3, "gone": 1},
		Softirqs:        map[string]uint64{"NET_RX": 7},
		ContextSwitches: 100, Backlog: Backlog{Processed: 10, Dropped: 1},
		Namespaces: []Protocol{{Namespace: "", TCP: TCP{Retransmitted: 5}}, {Namespace: "pod", UDP: UDP{In: 7}}},
		Devices: []Device{
			{Name: "eth0", Index: 2, RxPackets: 100, TxDrops: 1},
			{Name: "eth1", Index: 3, RxPackets: 50},
			{Name: "eth2", Index: 4},
			{Namespace: "pod", Name: "eth0", Index: 2, RxPackets: 1000},
		},
		Processes: []Process{{PID: 7, User: 1, Threads: map[string]float64{"main": 1, "vcpu": 2}, Vhost: 1}},
	}}
	later := Snapshot{Taken: begin.Add(2 * time.Second), Counters: Counters{
		CPU: CPU{User: 2.5, System: 0.25, Idle: 6, Steal: 0.25}, CPUs: []CPU{{User: 2.5, System: 0.25, Idle: 6, Steal: 0.25}, {}},
		Interrupts:      map[string]uint64{"LOC": 25, "virtio0-input.0": 2, "same": 3, "new": 4},
		Softirqs:        map[string]uint64{"NET_RX": 8},
		ContextSwitches: 130, Backlog: Backlog{Processed: 15, Dropped: 3, Squeezed: 1},
		Namespaces: []Protocol{{Namespace: "pod", UDP: UDP{In: 17, ReceiveBuffer: 2}}, {Namespace: "", TCP: TCP{Retransmitted: 6}}},
		Devices: []Device{
			{Name: "eth0", Index: 2, Driver: "veth", RxPackets: 130, TxDrops: 5, RxDrops: 2, QdiscDrops: 1},
			{Name: "eth1", Index: 9, RxPackets: 20}, // another device of that name
			{Namespace: "pod", Name: "eth0", Index: 2, RxPackets: 1001},
		},
		Processes: []Process{{PID: 7, Name: "qemu", User: 1.5, Threads: map[string]float64{"main": 1.25, "vcpu": 1}, Vhost: 3}, {PID: 8, System: 1}},
	}}
	got := later.Since(earlier)
	assert.Equal(t, Cost{Elapsed: 2 * time.Second, Counters: Counters{
		CPU: CPU{User: 1.5, System: 0.25, Idle: 1, Steal: 0.25}, CPUs: []CPU{{User: 1.5, System: 0.25, Idle: 1, Steal: 0.25}, {}},
		Interrupts:      map[string]uint64{"LOC": 15, "virtio0-input.0": 2, "new": 4},
		Softirqs:        map[string]uint64{"NET_RX": 1},
		ContextSwitches: 30, Backlog: Backlog{Processed: 5, Dropped: 2, Squeezed: 1},
		Namespaces: []Protocol{{Namespace: "pod", UDP: UDP{In: 10, ReceiveBuffer: 2}}, {Namespace: "", TCP: TCP{Retransmitted: 1}}},
		Devices: []Device{
			{Name: "eth0", Index: 2, Driver: "veth", RxPackets: 30, TxDrops: 4, RxDrops: 2, QdiscDrops: 1},
			{Name: "eth1", Index: 9, RxPackets: 20},
			{Namespace: "pod", Name: "eth0", Index: 2, RxPackets: 1},
		},
		Processes: []Process{
			{PID: 7, Name: "qemu", User: 0.5, Threads: map[string]float64{"main": 0.25, "vcpu": 0}, Vhost: 2},
			{PID: 8, System: 1, Threads: map[string]float64{}},
		},
	}}, got)
	assert.EqualValues(t, 7, got.Devices[0].Drops())
	assert.InDelta(t, 0.75, got.Busy(), 1e-9, "one cpu is offline")
	assert.InDelta(t, 1.75, got.CPU.Busy(), 1e-9)

	b, err := json.Marshal(got)
	require.NoError(t, err)
	var back Cost
	require.NoError(t, json.Unmarshal(b, &back))
	assert.Equal(t, got, back)
}

// TestLess32: sums of counters that end at 1<<32, over several CPUs.
func TestLess32(t *testing.T) {
	const end = uint64(1 << 32)
	for _, tt := range []struct {
		name                 string
		earlier, later, want uint64
	}{
		{"grown", 5, 8, 3},
		{"the same", 8, 8, 0},
		{"one CPU, past its end", end - 2, 3, 5},
		{"two CPUs, one past its end", end - 2 + 3_000_000_000, 3 + 3_000_000_000, 5},
		{"begun anew", 1_000_000, 7, 7},
		{"two CPUs past their ends, or begun anew", 2*end - 2, 7, 7},
	} {
		assert.Equal(t, tt.want, less32(tt.later, tt.earlier), tt.name)
	}
}

func TestTakeFails(t *testing.T) {
	_, err := Take(t.Context(), Options{Namespaces: []string{"/run/netns/no-such-namespace"}})
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
	require.ErrorContains(t, err, "no-such-namespace")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Take(ctx, Options{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestObserver(t *testing.T) {
	stop := Observer(Options{})()
	var c Cost
	require.NoError(t, json.Unmarshal(stop(), &c))
	assert.Positive(t, c.Elapsed)
	assert.NotEmpty(t, c.CPUs)
	require.Len(t, c.Namespaces, 1)
	require.NotEmpty(t, c.Devices)
	assert.Empty(t, c.Devices[0].Namespace)

	var failed struct{ Error string }
	require.NoError(t, json.Unmarshal(Observer(Options{PIDs: []int{1 << 30}})()(), &failed))
	assert.Contains(t, failed.Error, "process 1073741824")
}
