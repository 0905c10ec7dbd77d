package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/brfuse/brfuse/orchestrator/names"
)

func (p Parts) dns(_ context.Context, emit func(prometheus.Metric)) error {
	for network, s := range p.Names.Stats() {
		for rcode, n := range s.Queries {
			emit(counter(dnsQueries, n, network, rcode))
		}
		emit(histogram(dnsDuration, s.Own, network, "own"))
		emit(histogram(dnsDuration, s.Outside, network, "outside"))
		emit(counter(dnsForwarded, s.Forwarded, network))
		emit(counter(dnsFailures, s.ForwardFailures, network))
		emit(counter(dnsDiscarded, s.Busy, network, "busy"))
		emit(counter(dnsDiscarded, s.Foreign, network, "foreign"))
		emit(counter(dnsDiscarded, s.Malformed, network, "malformed"))
		emit(gauge(dnsRecords, float64(s.Records), network))
	}
	return nil
}

// histogram turns counts of single buckets into the running sums that Prometheus has.
func histogram(d *prometheus.Desc, h names.Histogram, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	return prometheus.MustNewConstHistogram(d, sum+h.Counts[len(h.Bounds)], h.Sum.Seconds(), buckets, labels...)
}
