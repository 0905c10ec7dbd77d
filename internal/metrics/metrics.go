// Package metrics counts what a daemon does, and serves the numbers in Prometheus' text
// format. Names and units follow https://prometheus.io/docs/practices/naming/.
//
// Attaches, detaches and requests of the store are counted as they happen: [Metrics] is
// an [orchestrator.Observer], and [Metrics.Store] a [store.Store]. Levels, such as free
// slots, are asked for at each scrape; see [Metrics.Ask]. What does not answer in time
// is missing in that scrape, and brfuse_scrape_source_up says so. A scrape holds up no
// attach.
//
// Labels name networks, VMs and services, which an administrator makes, but never pods.
package metrics

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/brfuse/brfuse/orchestrator"
)

// Metrics are a daemon's numbers. It is safe for concurrent use. Make it with [New].
type Metrics struct {
	reg *prometheus.Registry
	ops map[orchestrator.Operation]operation
	st  storeMetrics

	life context.Context // ends when Close begins
	end  context.CancelFunc
	asks sync.WaitGroup // of sources
}

// New returns the metrics of a daemon of that version. Close it.
func New(version string) *Metrics {
	m := &Metrics{reg: prometheus.NewRegistry(), st: newStoreMetrics()}
	m.life, m.end = context.WithCancel(context.Background())
	m.ops = map[orchestrator.Operation]operation{
		orchestrator.OpAttach: newOperation("attach", "attaches"),
		orchestrator.OpDetach: newOperation("detach", "detaches"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "brfuse_build_info", Help: "The daemon's version, of value 1.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, op := range m.ops {
		m.reg.MustRegister(op.total, op.duration)
	}
	m.st.register(m.reg)
	return m
}

// Close has whatever is still asked give up, and waits for it. Close the servers first.
func (m *Metrics) Close() {
	m.end()
	m.asks.Wait()
}
