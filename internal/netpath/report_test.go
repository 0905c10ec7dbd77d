package netpath

import (
	"math"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sample is a report whose counters are n times those of the first look.
func sample(n uint64) *Report {
	at := func(packets uint64) Count { return Count{Packets: n * packets, Bytes: n * packets * 1000} }
	drops := at(4)
	drops.Drops = 3 * (n - 1)
	return &Report{
		VM: "vm1", Pod: "web", Interface: "eth0", Notes: []string{"the pod has other interfaces"},
		Guest: &Path{
			Taken: int64(n) * 2e9, End: "eth0 is a NIC: the wire is behind it", Notes: []string{"something was not learned"},
			Namespaces: []Namespace{
				{Name: "/run/netns/web"},
				{
					Name: self, Own: true, Forwarding: true, BridgeFilter: true, Legacy: []string{"ip nat"},
					Conntrack: &Conntrack{Used: true, Entries: 7, Max: 100},
				},
			},
			Hops: []Hop{
				{Route: &Route{To: "default", Gateway: netip.MustParseAddr("10.0.0.1"), Device: "eth0"}},
				{Hook: &Hook{Name: "output", Direction: Out, Chains: []Chain{{
					Family: "inet", Table: "t", Name: "out", Type: "filter", Policy: "drop", Rules: 3, Called: 1, Conntrack: true, Uncounted: 2,
					Counters: []RuleCounter{
						{Chain: "out", Rule: 1, Does: "accept", Count: at(1)},
						{Chain: "sub", Rule: 2, Name: "bad", Does: "drop", Drops: true, Count: at(2)},
						{Chain: "out", Rule: 3, Does: "jump never"},
					},
				}}}},
				{Device: &Device{
					Name: "eth0", Kind: "veth", Driver: "veth", MTU: 1450, Up: true, Carrier: true, Master: "br0", RX: at(2), TX: drops,
					Offloads: []string{"gso", "gro"}, Programs: []string{"xdp (generic)"},
					Qdiscs: []Qdisc{{Kind: "noqueue", Parent: "root"}, {Kind: "tbf", Handle: "bf:", Parent: "root", Sent: drops, Waiting: 2, Backlog: 2800, Requeues: 1}},
				}},
				{Namespace: 1, Device: &Device{Name: "br0", Kind: "bridge", MTU: 1450, Up: true}},
				{Namespace: 1, Hook: &Hook{Name: "forward", Bridge: true, Direction: Both, Chains: []Chain{{
					Family: "bridge", Table: "b", Name: "f", Type: "filter", Priority: -300, Policy: "accept", NAT: true,
				}}}},
				{Namespace: 1, Device: &Device{
					Name: "vx0", Kind: "vxlan", MTU: 1450, VXLAN: &VXLAN{VNI: 5, Port: 4789, Remote: netip.MustParseAddr("192.0.2.7")},
				}},
				{Namespace: 1, Route: &Route{To: "192.0.2.7", Device: "eth0", Outer: true}},
				{Namespace: 1, Device: &Device{
					Name: "eth0", Kind: "nic", Driver: "virtio_net", Bus: "0000:01:00.0", MTU: 1500, Up: true, Carrier: true,
					Queues: 1, MaxQueues: 2, Vectors: 3, RX: Count{Packets: 1, Bytes: 1, Drops: 1, Errors: 1}, TX: Count{Packets: 5e6, Bytes: 7.25e9},
				}},
			},
		},
		Host: &Path{
			Taken: 1000, Namespaces: []Namespace{{Name: self, Own: true}}, End: "there is no default route here",
			Hops: []Hop{{Device: &Device{Name: "tap0", Kind: "tun", MTU: 1500, Up: true, Tap: &Tap{Queues: 1, Vhost: "qemu"}}}},
		},
	}
}

func TestWrite(t *testing.T) {
	r := sample(3)
	r.Since(sample(1))
	var got strings.Builder
	require.NoError(t, r.Write(&got))
	const golden = "testdata/report.txt"
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
}

func TestWriteHalf(t *testing.T) {
	r := &Report{VM: "vm1", Pod: "web", Interface: "eth0", Fused: true, Notes: []string{"the guest's side is not known: why"}}
	var got strings.Builder
	require.NoError(t, r.Write(&got))
	assert.Equal(t, `pod web in vm1, interface eth0: fused; from the pod to the wire
guest vm1
   not known
host
   not known
note: the guest's side is not known: why
`, got.String())
}

func TestSince(t *testing.T) {
	r := sample(3)
	r.Since(sample(1))
	assert.InDelta(t, 4.0, r.Seconds, 1e-9, "by the guest's clock")
	eth0 := r.Guest.Hops[2].Device
	assert.Equal(t, &Change{PacketsPerSecond: 1, BytesPerSecond: 1000}, eth0.RX.Since)
	assert.Equal(t, &Change{PacketsPerSecond: 2, BytesPerSecond: 2000, Drops: 6}, eth0.TX.Since)
	assert.Equal(t, uint64(6), eth0.Qdiscs[1].Sent.Since.Drops)
	assert.Equal(t, uint64(4), r.Guest.Hops[1].Hook.Chains[0].Counters[1].Count.Since.Drops, "by a rule")
	assert.Equal(t, uint64(16), r.Guest.Dropped(), "by the device, by its queue and by the rule")
	assert.Nil(t, r.Host.Hops[0].Device.RX.Since, "the host's clock stood still")

	r = sample(1)
	r.Since(sample(3))
	assert.Nil(t, r.Guest.Hops[2].Device.RX.Since, "time went backwards")
	r, liar := sample(3), sample(1)
	r.Guest.Taken, liar.Guest.Taken = math.MaxInt64, math.MinInt64
	r.Since(liar)
	assert.Nil(t, r.Guest.Hops[2].Device.RX.Since, "there is no such time")
	r = sample(1)
	r.Guest.Taken = 9e9
	r.Since(sample(3))
	assert.Nil(t, r.Guest.Hops[2].Device.RX.Since, "the counter began anew")
	r = sample(2)
	before := sample(1)
	before.Guest.Hops[2].Device.Index = 9
	r.Since(before)
	assert.Nil(t, r.Guest.Hops[2].Device.RX.Since, "another device has the name")
	(&Report{}).Since(sample(1))
}

func TestNext(t *testing.T) {
	p := sample(1).Guest
	to, gw := p.Next()
	assert.Equal(t, "192.0.2.7", to.String())
	assert.False(t, gw.IsValid())
	p.Hops = p.Hops[:1]
	to, gw = p.Next()
	assert.False(t, to.IsValid())
	assert.Equal(t, "10.0.0.1", gw.String())
	assert.Nil(t, p.Last())
}

func TestKind(t *testing.T) {
	device := func(kind string) Hop { return Hop{Device: &Device{Kind: kind}} }
	for _, tc := range []struct {
		name string
		in   Report
		want string
	}{
		{"fused", Report{Fused: true, Guest: &Path{Hops: []Hop{device("nic")}}}, "fused"},
		{"behind a veth", Report{Guest: &Path{Hops: []Hop{device("veth"), device("nic")}}}, "nested"},
		{"by the VM's own NIC", Report{Guest: &Path{Hops: []Hop{{Route: &Route{}}, device("nic")}}}, "native, by a NIC of the vm itself"},
		{"not known", Report{}, "nested"},
	} {
		t.Run(tc.name, func(t *testing.T) { assert.Equal(t, tc.want, tc.in.kind()) })
	}
}
