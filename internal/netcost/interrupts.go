package netcost

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Backlog is the kernel's queue between drivers that have no polling of their own,
// such as veth, and the protocols.
type Backlog struct {
	Processed uint64 `json:"processed"` // packets, those polled by drivers too
	Dropped   uint64 `json:"dropped"`   // packets: the queue was full
	Squeezed  uint64 `json:"squeezed"`  // how often polling ended for want of time with packets left
}

// parseInterrupts reads /proc/interrupts: a header of CPUs, and then a line for each
// kind, with a count for each CPU and what it is for.
func parseInterrupts(b []byte) (map[string]uint64, error) {
	return parseTable(b, func(label, rest string) string {
		if _, err := strconv.Atoi(label); err != nil {
			return label
		}
		return interruptName(label, rest)
	})
}

// parseSoftirqs reads /proc/softirqs, which has no text behind the counts.
func parseSoftirqs(b []byte) (map[string]uint64, error) {
	return parseTable(b, func(label, _ string) string { return label })
}

// parseTable adds up the counts of each line by the line's name.
func parseTable(b []byte, name func(label, rest string) string) (map[string]uint64, error) {
	header, lines, ok := strings.Cut(string(b), "\n")
	cpus := len(strings.Fields(header))
	if !ok || !strings.HasPrefix(strings.TrimSpace(header), "CPU") {
		return nil, fmt.Errorf("no header of cpus in %d bytes", len(b))
	}
	counts := map[string]uint64{}
	for line := range strings.Lines(lines) {
		label, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		var sum uint64
		for range cpus { // ERR and MIS have one count only
			word, after, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
			n, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				break
			}
			sum += n
			rest = after
		}
		counts[name(label, rest)] += sum
	}
	return counts, nil
}

// interruptName returns the device behind an interrupt. The text has the chip, the
// number there with the trigger ("49152-edge"), and, behind two spaces at least,
// the devices; one that nobody uses has none.
func interruptName(label, rest string) string {
	rest = strings.TrimSpace(rest)
	name := rest
	if i := strings.LastIndex(rest, "  "); i >= 0 {
		name = rest[i+2:]
	}
	name = strings.TrimSpace(name)
	last := name[strings.LastIndex(name, " ")+1:]
	number, _, _ := strings.Cut(last, "-")
	if _, err := strconv.Atoi(number); err == nil || name == "" || name == rest {
		return "irq " + label
	}
	return name
}

// parseSoftnet reads /proc/net/softnet_stat: a line for each CPU, of which the first
// three numbers, in hexadecimal and of 32 bits, are counted here.
func parseSoftnet(b []byte) (Backlog, error) {
	var sum Backlog
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 3 {
			return Backlog{}, fmt.Errorf("%d columns, not 3", len(f))
		}
		for i, counter := range []*uint64{&sum.Processed, &sum.Dropped, &sum.Squeezed} {
			n, err := strconv.ParseUint(string(f[i]), 16, 32)
			if err != nil {
				return Backlog{}, err
			}
			*counter += n
		}
	}
	return sum, nil
}

func (b Backlog) since(e Backlog) Backlog {
	return Backlog{less32(b.Processed, e.Processed), less32(b.Dropped, e.Dropped), less32(b.Squeezed, e.Squeezed)}
}
