package metrics

import (
	"context"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// storeMetrics are what is counted of a store.
type storeMetrics struct {
	duration *prometheus.HistogramVec // by op and outcome
	watches  prometheus.Gauge
	events   prometheus.Counter
	ends     *prometheus.CounterVec // by outcome
}

func newStoreMetrics() storeMetrics {
	return storeMetrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "brfuse_store_request_duration_seconds",
			Help:    `Durations of transactions, tries again included; outcome "refused" is the caller's own choice.`,
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"op", "outcome"}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{Name: "brfuse_store_watches", Help: "Watches that run."}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "brfuse_store_watch_events_total", Help: "Changes of keys that watches were told of.",
		}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "brfuse_store_watch_ends_total", Help: `Ended watches, by why; those that their callers gave up are "canceled".`,
		}, []string{"outcome"}),
	}
}

func (m storeMetrics) register(reg prometheus.Registerer) {
	reg.MustRegister(m.duration, m.watches, m.events, m.ends)
}

// measured is a store whose requests are counted.
type measured struct {
	store.Store
	m storeMetrics
}

// Store returns s, counted. Closing it closes s.
func (m *Metrics) Store(s store.Store) store.Store { return measured{s, m.st} }

// done counts a transaction that returned err, as its function did when refused.
func (m storeMetrics) done(op string, start time.Time, err error, refused bool) {
	outcome := orchestrator.Outcome(err)
	if refused && (vnic.CodeOf(err) != "" || outcome == orchestrator.OutcomeOther) {
		outcome = "refused" // else the function returned an error of the store
	}
	m.duration.WithLabelValues(op, outcome).Observe(time.Since(start).Seconds())
}

// View implements [store.Store].
func (s measured) View(ctx context.Context, fn func(store.ReadTx) error) error {
	start := time.Now()
	refused := false
	err := s.Store.View(ctx, func(tx store.ReadTx) error {
		err := fn(tx)
		refused = err != nil
		return err
	})
	s.m.done("view", start, err, refused)
	return err
}

// Update implements [store.Store].
func (s measured) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	start := time.Now()
	refused := false
	rev, err := s.Store.Update(ctx, func(tx store.Tx) error {
		err := fn(tx)
		refused = err != nil
		return err
	})
	s.m.done("update", start, err, refused)
	return rev, err
}

// Watch implements [store.Store].
func (s measured) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	events := s.Store.Watch(ctx, prefix, from)
	return func(yield func(store.Event, error) bool) {
		s.m.watches.Inc()
		outcome := orchestrator.Outcome(context.Canceled)
		defer func() {
			s.m.watches.Dec()
			s.m.ends.WithLabelValues(outcome).Inc()
		}()
		for ev, err := range events {
			if err != nil {
				outcome = orchestrator.Outcome(err)
			} else {
				s.m.events.Inc()
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}
