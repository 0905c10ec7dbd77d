// Package netcost counts what traffic costs: CPU time by kind, interrupts and
// softirqs, what TCP and UDP had to send again or drop, the packets of each device,
// and the CPU time of processes such as QEMU. It takes snapshots of the kernel's
// counters and says what lies between two.
//
// How exact CPU time is, depends on the kernel. /proc/stat tells it in units of
// 10 ms: over half a second that is 2 % of a CPU, so compare medians of several
// windows. Where time is accounted by ticks, as in Debian's cloud kernel (250 Hz), user,
// system, IRQ and softirq time are samples: a whole tick is charged to whatever the
// timer interrupts. An idle CPU has no ticks, so short work between two sleeps, as
// round trips have it, is sampled too seldom. Idle time is measured by the clock
// even there: [Cost.Busy] is what is left of the window, and [CPU.Busy] what was
// sampled. Where the hypervisor doesn't tell what it took away (steal), as QEMU's
// emulation doesn't, the first counts that as work, and ticks that fell into it are
// missing in the second; on a busy host only the time of QEMU's "vcpu" threads is to
// be trusted. Process time is exact to the nanosecond where the kernel has schedstat,
// else to 10 ms.
package netcost

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// procFS is where the kernel's counters are.
const procFS = "/proc"

// Options say what to count.
type Options struct {
	// Namespaces are network namespaces whose devices and protocols are counted, as
	// netnsx.Open takes them; "" is the caller's. Default: the caller's.
	Namespaces []string `json:"namespaces,omitempty"`
	// PIDs are processes whose CPU time is counted, with all of their threads.
	// Default: none.
	PIDs []int `json:"pids,omitempty"`
	// Vhost has the kernel threads that serve the NICs of these processes counted
	// too. It costs a look at every process of the machine.
	Vhost bool `json:"vhost,omitempty"`
}

// Counters are what the kernel has counted, or the difference of two of them.
type Counters struct {
	// CPU is the time of all CPUs together, CPUs that of each by its number. One
	// that is offline is all zero.
	CPU  CPU   `json:"cpu"`
	CPUs []CPU `json:"cpus"`
	// Interrupts are counted by the name of their device and queue, such as
	// "virtio1-input.0", or by the kernel's abbreviation: LOC for timer interrupts,
	// RES for rescheduling ones. In a difference those that didn't happen are left out.
	Interrupts map[string]uint64 `json:"interrupts"`
	// Softirqs are counted by the kernel's name for them: NET_RX, NET_TX, TIMER, SCHED.
	Softirqs map[string]uint64 `json:"softirqs"`
	// ContextSwitches are those of all CPUs.
	ContextSwitches uint64 `json:"contextSwitches"`
	// Backlog is the queue between drivers and protocols, of all CPUs.
	Backlog    Backlog    `json:"backlog"`
	Namespaces []Protocol `json:"namespaces"`
	Devices    []Device   `json:"devices"`
	Processes  []Process  `json:"processes,omitempty"`
}

// Snapshot is the state of all counters at one time.
type Snapshot struct {
	Taken time.Time `json:"taken"` // when the CPU time was read
	Counters
}

// Cost is what was counted between two snapshots.
type Cost struct {
	Elapsed time.Duration `json:"elapsed"` // nanoseconds
	Counters
}

// Busy returns the seconds in which CPUs worked: all of the window but what they
// were idle, waiting for a disk, or taken away by a hypervisor that tells it. Unlike
// [CPU.Busy] it doesn't rest on samples.
func (c Cost) Busy() float64 {
	online := 0
	for _, cpu := range c.CPUs {
		if cpu != (CPU{}) {
			online++
		}
	}
	return max(0, float64(online)*c.Elapsed.Seconds()-c.CPU.Idle-c.CPU.IOWait-c.CPU.Steal)
}

// Take reads all counters once. The error names the namespace or process that isn't
// there; a process that is gone is a [fs.ErrNotExist].
func Take(ctx context.Context, o Options) (Snapshot, error) {
	return take(ctx, o, false)
}

// take reads the counters; CPU time first or last, so that the reading of the others
// isn't in a window that begins or ends with it.
func take(ctx context.Context, o Options, cpuFirst bool) (Snapshot, error) {
	proc := os.DirFS(procFS)
	var s Snapshot
	steps := []func() error{
		func() error { return s.readNamespaces(ctx, proc, o.Namespaces) },
		func() error { return s.readProcesses(proc, o.PIDs, o.Vhost) },
		func() error { return s.readMachine(proc) },
	}
	if cpuFirst {
		steps[0], steps[2] = steps[2], steps[0]
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return Snapshot{}, fmt.Errorf("take a snapshot of the counters: %w", err)
		}
		if err := step(); err != nil {
			return Snapshot{}, fmt.Errorf("take a snapshot of the counters: %w", err)
		}
	}
	return s, nil
}

// readMachine reads what is the same in all namespaces.
func (s *Snapshot) readMachine(proc fs.FS) error {
	files := []struct {
		name  string
		parse func([]byte) error
	}{
		{"interrupts", func(b []byte) (err error) { s.Interrupts, err = parseInterrupts(b); return err }},
		{"softirqs", func(b []byte) (err error) { s.Softirqs, err = parseSoftirqs(b); return err }},
		{"thread-self/net/softnet_stat", func(b []byte) (err error) { s.Backlog, err = parseSoftnet(b); return err }},
		{"stat", func(b []byte) error { return s.parseStat(b) }},
	}
	for _, f := range files {
		b, err := fs.ReadFile(proc, f.name)
		if err == nil {
			err = f.parse(b)
		}
		if err != nil {
			return fmt.Errorf("read %s/%s: %w", procFS, f.name, err)
		}
	}
	s.Taken = time.Now()
	return nil
}
