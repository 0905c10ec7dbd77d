package netcost

import (
	"bytes"
	"fmt"
	"strconv"
)

// ticks is how many of the units of /proc are a second (USER_HZ, which is 100 on all
// of Go's platforms whatever the kernel's own HZ).
const ticks = 100

// maxCPUs bounds the number of a CPU (the largest NR_CPUS that a kernel takes).
const maxCPUs = 8192

// CPU is where the time of CPUs went, in seconds.
type CPU struct {
	User    float64 `json:"user"` // that of virtual machines and of nice processes included
	System  float64 `json:"system"`
	Softirq float64 `json:"softirq"`
	IRQ     float64 `json:"irq"`
	Idle    float64 `json:"idle"`
	IOWait  float64 `json:"iowait"`
	Steal   float64 `json:"steal"` // the hypervisor ran something else
	Guest   float64 `json:"guest"` // in virtual machines; a part of User
}

// Busy returns the seconds in which CPUs worked, as the kernel has accounted them;
// see [Cost.Busy]. What a hypervisor took away is no work.
func (c CPU) Busy() float64 { return c.User + c.System + c.Softirq + c.IRQ }

// parseStat reads /proc/stat.
func (c *Counters) parseStat(b []byte) error {
	found := false
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		number, isCPU := bytes.CutPrefix(f[0], []byte("cpu"))
		switch {
		case isCPU:
			cpu, err := parseCPU(f[1:])
			if err == nil && len(number) > 0 {
				err = c.setCPU(string(number), cpu)
			} else if err == nil {
				c.CPU, found = cpu, true
			}
			if err != nil {
				return fmt.Errorf("line %q: %w", bytes.TrimSpace(line), err)
			}
		case string(f[0]) == "ctxt":
			n, err := strconv.ParseUint(string(f[1]), 10, 64)
			if err != nil {
				return fmt.Errorf("context switches: %w", err)
			}
			c.ContextSwitches = n
		}
	}
	if !found {
		return fmt.Errorf("no line cpu in %d bytes", len(b))
	}
	return nil
}

func (c *Counters) setCPU(number string, cpu CPU) error {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n >= maxCPUs {
		return fmt.Errorf("no number of a cpu: %q", number)
	}
	for uint64(len(c.CPUs)) <= n {
		c.CPUs = append(c.CPUs, CPU{})
	}
	c.CPUs[n] = cpu
	return nil
}

// parseCPU reads the columns user, nice, system, idle, iowait, irq, softirq, steal,
// guest and guest_nice (proc(5)). User and nice have those of guests in them.
func parseCPU(f [][]byte) (CPU, error) {
	const user, nice, system, idle, iowait, irq, softirq, steal, guest, guestNice, columns = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
	if len(f) < columns {
		return CPU{}, fmt.Errorf("%d columns, not %d", len(f), columns)
	}
	var s [columns]float64
	for i := range s {
		n, err := strconv.ParseUint(string(f[i]), 10, 64)
		if err != nil {
			return CPU{}, err
		}
		s[i] = float64(n) / ticks
	}
	return CPU{
		User: s[user] + s[nice], System: s[system], Softirq: s[softirq], IRQ: s[irq],
		Idle: s[idle], IOWait: s[iowait], Steal: s[steal], Guest: s[guest] + s[guestNice],
	}, nil
}

func (c CPU) since(e CPU) CPU {
	// Idle and iowait may run backwards a little; nothing was spent then.
	d := func(later, earlier float64) float64 { return max(0, later-earlier) }
	return CPU{
		User: d(c.User, e.User), System: d(c.System, e.System), Softirq: d(c.Softirq, e.Softirq), IRQ: d(c.IRQ, e.IRQ),
		Idle: d(c.Idle, e.Idle), IOWait: d(c.IOWait, e.IOWait), Steal: d(c.Steal, e.Steal), Guest: d(c.Guest, e.Guest),
	}
}
