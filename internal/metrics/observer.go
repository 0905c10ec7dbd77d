package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// whole is the step that stands for all of an operation.
const whole = "total"

// operation are the metrics of one kind of operation.
type operation struct {
	total    *prometheus.CounterVec   // by outcome
	duration *prometheus.HistogramVec // by step and outcome
}

func newOperation(name, plural string) operation {
	return operation{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "brfuse_" + plural + "_total",
			Help: "Finished " + plural + `, by outcome: "ok", or the kind of error.`,
		}, []string{"outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "brfuse_" + name + "_duration_seconds",
			Help:    "Durations of " + plural + ` by step, those of undoing included; step "total" is all of it, with the wait for others.`,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"step", "outcome"}),
	}
}

var _ orchestrator.Observer = (*Metrics)(nil)

// Begin implements [orchestrator.Observer].
func (m *Metrics) Begin(ctx context.Context, op orchestrator.Operation) (context.Context, func(vnic.Attachment, error)) {
	start := time.Now()
	return ctx, func(_ vnic.Attachment, err error) {
		outcome := orchestrator.Outcome(err)
		m.ops[op].total.WithLabelValues(outcome).Inc()
		m.ops[op].duration.WithLabelValues(whole, outcome).Observe(time.Since(start).Seconds())
	}
}

// Step implements [orchestrator.Observer]. Of a step that has parts, these are observed.
func (m *Metrics) Step(ctx context.Context, op orchestrator.Operation, name string) (context.Context, func([]vnic.Timing, error)) {
	start := time.Now()
	duration := m.ops[op].duration
	return ctx, func(parts []vnic.Timing, err error) {
		if err != nil || len(parts) == 0 {
			duration.WithLabelValues(name, orchestrator.Outcome(err)).Observe(time.Since(start).Seconds())
			return
		}
		for _, p := range parts {
			duration.WithLabelValues(p.Step, orchestrator.Outcome(nil)).Observe(p.Duration.Seconds())
		}
	}
}
