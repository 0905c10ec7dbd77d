package main

import (
	"errors"
	"maps"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

// percentiles are those of a latency that a sample has.
var percentiles = map[string]float64{result.P50: 50, result.P90: 90, result.P99: 99, result.P999: 99.9}

// sample makes one of a load's result and what was counted meanwhile.
func sample(res netload.Result, seen costs) (s result.Sample, err error) {
	if res.Received == 0 || res.Elapsed <= 0 {
		return s, errors.New("nothing was received")
	}
	s = result.Sample{Metrics: map[string]float64{result.Rate: res.MessagesPerSecond()}, Drops: map[string]uint64{}}
	m := s.Metrics
	if stream(res.Kind) {
		m[result.Throughput] = res.BytesPerSecond()
	}
	if res.Kind == netload.UDPStream || res.Kind == netload.UDPRR {
		m[result.Loss] = res.Loss()
	}
	if res.Latency != nil {
		for name, p := range percentiles {
			m[name] = float64(res.Percentile(p))
		}
		text, err := res.Latency.MarshalText()
		if err != nil {
			return s, err
		}
		s.Latency = string(text)
	}
	addGuests(m, res, seen)
	addHosts(m, res, seen.hosts)
	addLosses(&s, seen)
	return s, nil
}

func stream(k netload.Kind) bool { return k == netload.TCPStream || k == netload.UDPStream }

// addGuests adds the sums over all guests.
func addGuests(m map[string]float64, res netload.Result, seen costs) {
	var busy float64 // seconds
	for _, c := range seen.guests {
		t := c.Elapsed.Seconds()
		if t <= 0 {
			continue
		}
		busy += c.Busy()
		m[result.GuestCPU] += c.Busy() / t
		m[result.GuestUser] += c.CPU.User / t
		m[result.GuestSystem] += c.CPU.System / t
		m[result.GuestSoftirq] += c.CPU.Softirq / t
		m[result.GuestIRQ] += c.CPU.IRQ / t
		for name, n := range c.Interrupts {
			if device(name) {
				m[result.Interrupts] += float64(n) / t
			}
		}
		for name, n := range c.Softirqs {
			m[result.Softirqs] += float64(n) / t
			switch name {
			case "NET_RX":
				m[result.NetRx] += float64(n) / t
			case "NET_TX":
				m[result.NetTx] += float64(n) / t
			}
		}
	}
	m[result.GuestTime] = busy * 1e9 / float64(res.Received)
	if stream(res.Kind) {
		m[result.GuestTimeKiB] = busy * 1e9 * 1024 / float64(res.Bytes)
	}
}

// device tells whether an interrupt is one of a device: the kernel's own, such as the
// timer's LOC, are in capitals.
func device(name string) bool { return strings.ToUpper(name) != name }

// addHosts adds what the hypervisors' processes and this machine took.
func addHosts(m map[string]float64, res netload.Result, c netcost.Cost) {
	t := c.Elapsed.Seconds()
	if t <= 0 {
		return
	}
	var total, vcpus, vhost float64
	for _, p := range c.Processes {
		total += p.Total()
		vcpus += p.Threads["vcpu"]
		vhost += p.Vhost
	}
	m[result.QEMUCPU], m[result.VCPUs], m[result.VhostCPU] = total/t, vcpus/t, vhost/t
	m[result.HostSoftirq] = c.CPU.Softirq / t
	m[result.QEMUTime] = total * 1e9 / float64(res.Received)
}

// addLosses adds what was sent again or dropped, in the guests and on the
// hypervisors.
func addLosses(s *result.Sample, seen costs) {
	all := maps.Clone(seen.guests)
	all["hypervisors"] = seen.hosts
	for prefix, c := range all {
		if prefix == "hypervisors" {
			prefix = ""
		} else if n := c.Backlog.Dropped; n > 0 {
			s.Drops[prefix+"guest:backlog"] += n
		}
		for _, d := range c.Devices {
			if n := d.Drops(); n > 0 {
				s.Drops[prefix+d.Namespace+":"+d.Name] += n
			}
		}
		for _, p := range c.Namespaces {
			s.Metrics[result.Retransmits] += float64(p.TCP.Retransmitted)
			if n := p.UDP.ReceiveBuffer; n > 0 {
				s.Drops[prefix+p.Namespace+":udp-buffer"] += n
			}
		}
	}
	s.Metrics[result.Drops] = 0
	for _, n := range s.Drops {
		s.Metrics[result.Drops] += float64(n)
	}
}
