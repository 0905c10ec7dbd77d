// Package pin has threads run on some of the machine's CPUs only. Which of them share a
// CPU is worth more than what benchmarks are to tell apart: left to the scheduler, it
// changes from second to second, and with it a figure between two values.
package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Allowed returns the CPUs that the calling thread may run on, in ascending order.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask which CPUs may be used: %w", err)
	}
	var all []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all, nil
}

// passes bounds how often the threads of a process are listed.
const passes = 10

// Process has all threads of a process run on cpus, and with them those that they
// start later, also in other processes.
func Process(pid int, cpus []int) error {
	return threads(pid, func(string) []int { return cpus })
}

// QEMU has the vCPUs of a guest run on vcpus, one on each in turn, and QEMU's other
// threads on others. It takes QEMU's option -name debug-threads=on.
func QEMU(pid int, vcpus, others []int) error {
	found := false
	err := threads(pid, func(name string) []int {
		cpus, is := vcpu(name, vcpus)
		if !is {
			return others
		}
		found = true
		return cpus
	})
	if err == nil && !found {
		err = fmt.Errorf("pin QEMU, process %d: no thread has the name of a vCPU; start it with -name debug-threads=on", pid)
	}
	return err
}

// vcpu returns where the thread of that name runs, if it is one of a vCPU: "CPU 0/KVM",
// "CPU 0/TCG", or "ALL CPUs/TCG", one thread for all.
func vcpu(name string, vcpus []int) (cpus []int, is bool) {
	if strings.HasPrefix(name, "ALL CPUs/") {
		return vcpus, true
	}
	number, is := strings.CutPrefix(name, "CPU ")
	number, _, _ = strings.Cut(number, "/")
	n, err := strconv.Atoi(number)
	if !is || err != nil {
		return nil, false
	}
	return vcpus[n%len(vcpus) : n%len(vcpus)+1], true
}

// threads asks of each thread of a process, by its name, where it is to run; again until
// there is none that was started meanwhile.
func threads(pid int, where func(name string) []int) error {
	done := map[string]bool{}
	for range passes {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return fmt.Errorf("list the threads of process %d: %w", pid, err)
		}
		before := len(done)
		for _, e := range entries {
			if done[e.Name()] {
				continue
			}
			done[e.Name()] = true
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/comm", pid, e.Name()))
			if err == nil {
				err = thread(e.Name(), where(strings.TrimSpace(string(name))))
			}
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) { // it may have ended
				return fmt.Errorf("pin process %d: %w", pid, err)
			}
		}
		if len(done) == before {
			return nil
		}
	}
	return fmt.Errorf("pin process %d: it starts threads all the time", pid)
}

func thread(id string, cpus []int) error {
	tid, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("have thread %d run on CPUs %v: %w", tid, cpus, err)
	}
	return nil
}

// Layout is where the threads of a rig run. The zero value is: anywhere.
type Layout struct {
	// All are the machine's CPUs, as far as this process may use them.
	All []int
	// Nodes are the hypervisors.
	Nodes []Node
	// Rest are those of everything else, clients on a hypervisor among that.
	Rest []int
}

// Node is where the threads of a hypervisor's QEMU run.
type Node struct {
	VCPUs  []int // those of the guest's vCPUs
	Others []int // all others
}

// Divide gives one or more hypervisors, each with a guest of so many vCPUs, and the
// client equal shares of cpus, as if each were a machine of its own; in a pair, the
// client is in a guest. In its share each vCPU has a CPU of its own, when one is left for
// QEMU's other threads; else they share it. Without a CPU for each the layout is zero.
func Divide(cpus []int, hypervisors, vcpus int) Layout {
	shares := max(hypervisors, 2)
	size := len(cpus) / shares
	if size == 0 {
		return Layout{}
	}
	l := Layout{All: cpus, Rest: cpus}
	for i := range hypervisors {
		part := cpus[i*size : (i+1)*size]
		n := Node{VCPUs: part, Others: part}
		if size > vcpus {
			n = Node{VCPUs: part[:vcpus], Others: part[vcpus:]}
		}
		l.Nodes = append(l.Nodes, n)
	}
	if hypervisors < shares {
		l.Rest = cpus[hypervisors*size:]
	}
	return l
}

// String is for reports: "guest a on 0; the rest on 1".
func (l Layout) String() string {
	if len(l.Nodes) == 0 {
		return "anywhere"
	}
	var parts []string
	for i, n := range l.Nodes {
		guest := string(rune('a' + i))
		if slices.Equal(n.VCPUs, n.Others) {
			parts = append(parts, fmt.Sprintf("guest %s on %s", guest, list(n.VCPUs)))
			continue
		}
		parts = append(parts, fmt.Sprintf("vCPUs of guest %s on %s, QEMU's other threads on %s", guest, list(n.VCPUs), list(n.Others)))
	}
	return strings.Join(append(parts, "the rest on "+list(l.Rest)), "; ")
}

func list(cpus []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(cpus), " ", ","), "[]")
}
