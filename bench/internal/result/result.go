// Package result has what the network benchmarks write down, a line of JSON for
// each sample, and what is read from it: ratios with their intervals, goals,
// cross-checks, what each layer costs, and the table that a run ends with.
package result

import "time"

// Rigs.
const (
	Host = "host" // one guest, and a process on its hypervisor
	Pair = "pair" // two guests, on a hypervisor each
)

// Topologies, as docs/benchmarks.md draws them.
const (
	Native        = "native"
	Veth          = "veth"
	Bridged       = "bridged"
	NAT           = "nat"
	Fused         = "fused"
	OverlayLinux  = "overlay-linux"
	OverlayNested = "overlay-nested"
	OverlayFused  = "overlay-fused"
)

// Metrics; the unit is the name's end, or behind a slash. A CPU metric is in
// CPUs: 1 is one CPU that was busy for all of the measured time. Those of the
// guest are sums over the rig's guests.
const (
	Throughput      = "B/s"   // payload received
	Rate            = "msg/s" // packets, round trips or connections
	P50             = "p50-ns"
	P90             = "p90-ns"
	P99             = "p99-ns"
	P999            = "p99.9-ns"
	Loss            = "loss" // a fraction of what was sent
	Retransmits     = "retrans"
	Drops           = "drops"
	GuestUser       = "guest-user-cpu"
	GuestSystem     = "guest-system-cpu"
	GuestSoftirq    = "guest-softirq-cpu"
	GuestIRQ        = "guest-irq-cpu"
	GuestCPU        = "guest-cpu" // all but idle
	QEMUCPU         = "qemu-cpu"
	VCPUs           = "vcpu-cpu" // of QEMU, the threads of vCPUs only
	VhostCPU        = "vhost-cpu"
	HostSoftirq     = "host-softirq-cpu"
	GuestTime       = "guest-ns/msg"
	GuestTimeKiB    = "guest-ns/KiB"
	QEMUTime        = "qemu-ns/msg"
	Interrupts      = "irq/s"
	Softirqs        = "softirq/s"
	NetRx           = "net-rx-softirq/s"
	NetTx           = "net-tx-softirq/s"
	Instructions    = "insn/msg"
	InstructionsKiB = "insn/KiB"
)

// Metrics that a Set derives, when a sample has what they follow from.
const (
	Time    = "ns/msg" // by Rate
	TimeKiB = "ns/KiB" // by Throughput
)

// Kinds of lines.
const (
	sampleKind      = "sample"
	environmentKind = "environment"
)

// Sample is what one run of a workload in a topology has measured.
type Sample struct {
	Kind     string `json:"kind"` // "sample"
	Rig      string `json:"rig"`
	Topology string `json:"topology"`
	// Workload is its kind and size, and what else sets it apart: "tcp_stream/16384/flows=4".
	Workload string             `json:"workload"`
	Round    int                `json:"round"` // from 1; those before were to warm up
	Metrics  map[string]float64 `json:"metrics"`
	// Drops are packets dropped on the way, by where: "guest:eth0".
	Drops map[string]uint64 `json:"drops,omitempty"`
	// Latency is an HDR histogram in nanoseconds, as its library encodes it.
	Latency string `json:"latency,omitempty"`
}

// Environment is what the samples of a rig depend on beside what is measured. All
// fields but Kind may be empty where they aren't known.
type Environment struct {
	Kind    string    `json:"kind"` // "environment"
	Rig     string    `json:"rig,omitempty"`
	Command string    `json:"command,omitempty"` // the one that measured
	Time    time.Time `json:"time,omitzero"`     // when it began
	Brfuse  string    `json:"brfuse,omitempty"`
	Go      string    `json:"go,omitempty"`

	Kernel string `json:"kernel,omitempty"` // of the hypervisor
	CPU    string `json:"cpu,omitempty"`    // its model's name
	CPUs   int    `json:"cpus,omitempty"`
	Load   string `json:"load,omitempty"` // averages of 1, 5 and 15 minutes, before

	// Pinned says which threads run on which of the machine's CPUs.
	Pinned string `json:"pinned,omitempty"`

	QEMU        string `json:"qemu,omitempty"`
	Accel       string `json:"accel,omitempty"` // "tcg" or "kvm"
	Vhost       bool   `json:"vhost"`
	GuestKernel string `json:"guestKernel,omitempty"`
	GuestCPUs   int    `json:"guestCPUs,omitempty"` // of each guest
	Arch        string `json:"arch,omitempty"`      // of the guest, as Go names it

	// Offloads are those that are on, by device: "guest:eth0": "tso gso gro".
	Offloads map[string]string `json:"offloads,omitempty"`
	// Programs are versions of the foreign programs: "iperf3": "3.12".
	Programs map[string]string `json:"programs,omitempty"`
}
