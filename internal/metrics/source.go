package metrics

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeLimit bounds how long a scrape waits for its sources.
const scrapeLimit = 2 * time.Second

var sourceUp = prometheus.NewDesc("brfuse_scrape_source_up", "Whether a source has told all it should, in time, at this scrape.", []string{"source"}, nil)

// source is where levels come from.
type source struct {
	name  string
	descs []*prometheus.Desc
	// ask emits what there is. It may do so and fail.
	ask  func(ctx context.Context, emit func(prometheus.Metric)) error
	turn chan struct{} // has room for the scrape that asks; one that never ends keeps it
}

// sources are a collector, which asks all of them at once.
type sources struct {
	list []source
	life context.Context // that the scrapes are within
	asks *sync.WaitGroup
}

// Describe implements [prometheus.Collector].
func (c *sources) Describe(ch chan<- *prometheus.Desc) {
	ch <- sourceUp
	for _, s := range c.list {
		for _, d := range s.descs {
			ch <- d
		}
	}
}

// Collect implements [prometheus.Collector]. It returns within scrapeLimit.
func (c *sources) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.life, scrapeLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range c.list {
		wg.Go(func() {
			got, err := s.collect(ctx, c.asks)
			for _, m := range got {
				ch <- m
			}
			up := 1.0
			if err != nil {
				up = 0
			}
			ch <- prometheus.MustNewConstMetric(sourceUp, prometheus.GaugeValue, up, s.name)
		})
	}
	wg.Wait()
}

// collect asks a source, after other scrapes have, until ctx ends. One that doesn't
// heed ctx is left behind, with what it emits.
func (s source) collect(ctx context.Context, asks *sync.WaitGroup) ([]prometheus.Metric, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var mu sync.Mutex
	var got []prometheus.Metric // guarded by mu
	failed := make(chan error, 1)
	asks.Go(func() {
		defer func() { <-s.turn }()
		failed <- s.ask(ctx, func(m prometheus.Metric) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, m)
		})
	})
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(got), err
}
