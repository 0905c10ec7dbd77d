package netbench

import (
	"fmt"
	"math"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// toSample makes metrics of what the guests have measured.
func toSample(r guestlink.BenchResult, spec netload.Spec) (Sample, error) {
	s := Sample{Metrics: map[string]float64{}, Drops: map[string]uint64{}}
	if r.Received == 0 {
		return s, fmt.Errorf("no message arrived within %s, %d were sent; let the vms' firewalls pass TCP and UDP, or leave the workload out: %w", spec.Duration, r.Sent, vnic.ErrUnsupported)
	}
	seconds := r.Elapsed.Seconds()
	m := s.Metrics
	m["msg/s"] = float64(r.Received) / seconds
	m["B/s"] = float64(r.Bytes) / seconds
	if spec.Kind == netload.UDPStream || spec.Kind == netload.UDPRR {
		m["loss"] = float64(r.Lost) / float64(max(r.Sent, 1))
	}
	m["retrans"], m["drops"] = float64(r.Client.Retransmits+r.Server.Retransmits), 0
	if r.Latency != nil {
		if err := latencies(&s, r.Latency); err != nil {
			return s, err
		}
	}
	for _, side := range []struct {
		name string
		cost guestlink.BenchCost
	}{{"client", r.Client}, {"server", r.Server}} {
		for device, n := range side.cost.Drops {
			s.Drops[side.name+":"+device] = n
			m["drops"] += float64(n)
		}
		addCPU(m, side.cost)
	}
	m["guest-ns/msg"] = m["guest-cpu"] * seconds * 1e9 / float64(r.Received)
	if r.Bytes > 0 {
		m["guest-ns/KiB"] = m["guest-cpu"] * seconds * 1e9 / (float64(r.Bytes) / 1024)
	}
	for name, v := range m {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return s, fmt.Errorf("%s is no number: %w", name, vnic.ErrInvalid)
		}
	}
	return s, nil
}

// addCPU adds a guest's CPU time to metrics: cores, 1 is one CPU for the whole time.
func addCPU(m map[string]float64, c guestlink.BenchCost) {
	if c.Elapsed <= 0 {
		return
	}
	for name, d := range map[string]time.Duration{
		"guest-user-cpu": c.User, "guest-system-cpu": c.System, "guest-softirq-cpu": c.Softirq, "guest-irq-cpu": c.IRQ,
	} {
		cores := d.Seconds() / c.Elapsed.Seconds()
		m[name] += cores
		m["guest-cpu"] += cores
	}
}

func latencies(s *Sample, h *netload.Histogram) error {
	text, err := h.MarshalText()
	if err != nil {
		return err
	}
	s.Latency = string(text)
	for name, p := range map[string]float64{"p50-ns": 50, "p90-ns": 90, "p99-ns": 99, "p99.9-ns": 99.9} {
		s.Metrics[name] = float64(h.Percentile(p).Nanoseconds())
	}
	return nil
}
