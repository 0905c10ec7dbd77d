package result

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Set is what some runs have measured, without their rounds to warm up. The zero
// Set is empty and ready for use. It isn't safe for concurrent use.
type Set struct {
	Environments []Environment
	Samples      []Sample // in the order in which they were added

	of    []int // which environment each sample is of; -1 is none
	envs  []int // the run of each environment
	run   int   // the present one: rounds of different runs are not the same
	index map[Ref][]observation
	seen  map[place]bool
	order []Ref // of index, as added
}

// Ref names a series: a metric of a workload in a topology of a rig.
type Ref struct{ Rig, Topology, Workload, Metric string }

func (r Ref) String() string {
	return r.Rig + " " + r.Topology + " " + r.Workload + " " + r.Metric
}

// observation is a value of a series.
type observation struct {
	run, round int
	value      float64
}

// place is what has one observation at most.
type place struct {
	Ref
	run, round int
}

// Begin begins another run: its rounds are not those of the one before.
func (s *Set) Begin() { s.run++ }

// AddEnvironment adds what samples of its rig that follow depend on; those of all
// rigs, if it names none.
func (s *Set) AddEnvironment(e Environment) {
	s.Environments, s.envs = append(s.Environments, e), append(s.envs, s.run)
}

// EnvironmentOf returns what Samples[i] depends on: the last environment of its run
// and rig before it.
func (s *Set) EnvironmentOf(i int) (e Environment, ok bool) {
	if s.of[i] < 0 {
		return e, false
	}
	return s.Environments[s.of[i]], true
}

// Add checks and adds a sample; one of a round to warm up is checked only. A
// series has one sample a round.
func (s *Set) Add(sample Sample) error {
	if err := sample.check(); err != nil {
		return err
	}
	if sample.Round < 1 {
		return nil
	}
	if s.index == nil {
		s.index, s.seen = map[Ref][]observation{}, map[place]bool{}
	}
	values := sample.derived()
	names := slices.Sorted(maps.Keys(values))
	for _, name := range names {
		if p := (place{sample.ref(name), s.run, sample.Round}); s.seen[p] {
			return fmt.Errorf("%s: a second sample of round %d", p.Ref, sample.Round)
		}
	}
	for _, name := range names {
		s.observe(sample.ref(name), sample.Round, values[name])
	}
	s.Samples, s.of = append(s.Samples, sample), append(s.of, s.present(sample.Rig))
	return nil
}

// present returns the index of the environment that a rig has now.
func (s *Set) present(rig string) int {
	for i, e := range slices.Backward(s.Environments) {
		if s.envs[i] == s.run && (e.Rig == rig || e.Rig == "") {
			return i
		}
	}
	return -1
}

func (s *Set) observe(r Ref, round int, value float64) {
	if s.index[r] == nil {
		s.order = append(s.order, r)
	}
	s.index[r] = append(s.index[r], observation{s.run, round, value})
	s.seen[place{r, s.run, round}] = true
}

func (s *Sample) ref(metric string) Ref { return Ref{s.Rig, s.Topology, s.Workload, metric} }

func (s *Sample) check() error {
	if s.Rig == "" || s.Topology == "" || s.Workload == "" {
		return errors.New("a sample without rig, topology or workload")
	}
	if kind, _, _ := strings.Cut(s.Workload, "/"); kind == "" || strings.ContainsFunc(s.Rig+s.Topology+s.Workload, unicode.IsSpace) {
		return fmt.Errorf("a sample of %q %q %q: a space, or a workload without a kind", s.Rig, s.Topology, s.Workload)
	}
	for name, v := range s.Metrics {
		if name == "" || strings.ContainsFunc(name, unicode.IsSpace) {
			return fmt.Errorf("%s: %q is no metric", s.ref(""), name)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return fmt.Errorf("%s: %g is no measurement", s.ref(name), v)
		}
	}
	if s.Latency == "" {
		return nil
	}
	if _, err := hdrhistogram.Decode([]byte(s.Latency)); err != nil {
		return fmt.Errorf("%s: decode histogram: %w", s.ref("latency"), err)
	}
	return nil
}

// derived returns the metrics and those that follow from them.
func (s *Sample) derived() map[string]float64 {
	all := maps.Clone(s.Metrics)
	if v := s.Metrics[Rate]; v > 0 {
		all[Time] = 1e9 / v
	}
	if v := s.Metrics[Throughput]; v > 0 {
		all[TimeKiB] = 1e9 * 1024 / v
	}
	return all
}
