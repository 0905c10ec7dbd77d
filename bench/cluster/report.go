package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/internal/stats"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

const (
	// goal is what an attach may take, compared with the bare transactions beneath.
	goal = 2
	// changeGoal leaves room for caches of the CPU, which hold a small table and not a
	// large one.
	changeGoal = 1.5
	// total is how many endpoints memory is told for.
	total = 100_000
)

// comparisons are those that the report has.
func comparisons() []samples.Comparison {
	var all []samples.Comparison
	add := func(name, of, to string, goal float64) {
		all = append(all, samples.Comparison{Name: name, Of: of, To: to, Goal: goal})
	}
	add("lease / bare transaction, median", leaseSeries+p50Part, bareLeaseSeries+p50Part, goal)
	add("lease / bare transaction, 99th percentile", leaseSeries+p99Part, bareLeaseSeries+p99Part, goal)
	add("attach / its bare transactions, median", attachSeries+p50Part, bareAttachSeries+p50Part, goal)
	add("attach / its bare transactions, 99th percentile", attachSeries+p99Part, bareAttachSeries+p99Part, goal)
	add("attach / its bare transactions, time for each", attachSeries+eachPart, bareAttachSeries+eachPart, goal)
	add("attach / bare transaction of its lease, median", attachSeries+p50Part, bareLeaseSeries+p50Part, 0)
	add("detach / its bare transactions, median", detachSeries+p50Part, bareDetachSeries+p50Part, 0)
	add("detach / its bare transactions, time for each", detachSeries+eachPart, bareDetachSeries+eachPart, 0)
	small := changeSizes[0]
	for _, size := range changeSizes[1:] {
		add(fmt.Sprintf("a change among %d / among %d endpoints", size, small), changeName(size), changeName(small), changeGoal)
	}
	return all
}

// env is what the figures depend on.
type env struct {
	CPUs       int    `json:"cpus"`
	Load       string `json:"load"`
	LoadAfter  string `json:"-"`
	Go, Brfuse string
}

func environment() env {
	return env{CPUs: runtime.NumCPU(), Load: load(), Go: runtime.Version(), Brfuse: buildinfo.Version()}
}

// load returns the load averages.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// report is what was found.
type report struct {
	options
	env            env
	series         map[string][]float64 // in milliseconds
	ratios         []samples.Ratio
	start, all     memory // of the process that follows
	attach, detach []step
	repeats        int64 // of what etcd did not answer in time
}

// onEtcd measures all that needs etcd.
func (rep *report) onEtcd(ctx context.Context, rec *samples.Recorder, progress io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	etcd, err := etcdtest.New(ctx, etcdtest.Options{Members: rep.members})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, etcd.Close()) }()
	cfg := etcdstore.Config{Endpoints: etcd.Endpoints(), RequestTimeout: patience}
	start := time.Now()
	hs, err := newFleet(ctx, cfg, rep.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hs.close()) }() //nolint:contextcheck // has to be done when ctx has ended too
	fmt.Fprintf(progress, "joined: %d hypervisors, %s\n", len(hs), time.Since(start).Round(time.Second))
	if _, err := hs[0].orch.CreateNetwork(ctx, network); err != nil {
		return err
	}
	f, err := startFollower(ctx, cfg.Endpoints, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	b, err := newBare(ctx, cfg.Endpoints, rep.concurrency, hs[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	rep.start, rep.attach, rep.detach = f.start, b.attach, b.detach
	c := &cluster{options: rep.options, fleet: hs, bare: b, rec: rec, progress: progress}
	return rep.measure(ctx, c, f)
}

// measure attaches all pods and detaches them, and looks at all in between.
func (rep *report) measure(ctx context.Context, c *cluster, f *follower) (err error) {
	if err := c.attachAll(ctx); err != nil {
		return err
	}
	s := c.fleet[0].etcd
	if err := c.fleet.checkAttached(ctx, s); err != nil {
		return err
	}
	n := c.hypervisors * (c.pods + 1)
	if rep.all, err = f.memory(n); err != nil {
		return err
	}
	if err := c.rec.Write(rep.all); err != nil {
		return err
	}
	if err := c.detachAll(ctx); err != nil {
		return err
	}
	if err := awaitEmpty(ctx, s); err != nil {
		return err
	}
	rep.repeats = c.repeats.Load()
	_, err = f.memory(0)
	return err
}

// print prints the report and tells whether no ratio that has a goal is above the
// limit. 0 is no limit.
func (rep *report) print(w io.Writer, limit float64) (met bool, err error) {
	var b strings.Builder
	e := rep.env
	fmt.Fprintf(&b, "host     %d CPUs, load %s before and %s after\n", e.CPUs, e.Load, e.LoadAfter)
	fmt.Fprintf(&b, "brfuse   %s, %s\n", e.Brfuse, e.Go)
	fmt.Fprintf(&b, "cluster  %d hypervisors, %d pods on each, %d members of etcd, %d operations at a time, %d rounds\n\n",
		rep.hypervisors, rep.pods, rep.members, rep.concurrency, rep.rounds)
	describe(&b, "attach", rep.attach)
	describe(&b, "detach", rep.detach)
	rep.printSeries(&b)
	b.WriteString("\n")
	err = samples.Print(&b, rep.ratios)
	rep.printMemory(&b)
	fmt.Fprintf(&b, "\nno address was leased twice; the store had what %d attachments and %d hypervisors have, and nothing in the end;\n%d attaches and detaches were repeated, for etcd did not answer in time\n",
		rep.hypervisors*rep.pods, rep.hypervisors, rep.repeats)
	met = limit == 0 || !slices.ContainsFunc(rep.ratios, func(q samples.Ratio) bool { return q.Goal > 0 && q.Value > limit })
	if !met {
		fmt.Fprintf(&b, "\na ratio is above %g, the limit of -fail-above\n", limit)
	}
	_, werr := io.WriteString(w, b.String())
	return met, errors.Join(err, werr)
}

// describe tells what transactions are made of.
func describe(b *strings.Builder, what string, list []step) {
	fmt.Fprintf(b, "%s   %d transactions", what, len(list))
	for i, s := range list {
		bytes := 0
		for k, v := range s.puts {
			bytes += len(k) + len(v)
		}
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(b, "%s%d conditions with %d puts (%d bytes) and %d deletes", sep,
			len(s.absent)+len(s.present)+len(s.ranges), len(s.puts), bytes, len(s.deletes))
	}
	b.WriteString("\n")
}

func (rep *report) printSeries(b *strings.Builder) {
	fmt.Fprintf(b, "\n%-52s%10s%10s%10s\n", "milliseconds, medians of the rounds", "median", "99th", "each")
	for _, r := range []struct{ title, series string }{
		{"lease", leaseSeries},
		{"  bare transaction", bareLeaseSeries},
		{"attach", attachSeries},
		{"  bare transactions", bareAttachSeries},
		{"detach", detachSeries},
		{"  bare transactions", bareDetachSeries},
	} {
		of := func(part string) string {
			xs := rep.series[r.series+part]
			if len(xs) == 0 {
				return "-"
			}
			return fmt.Sprintf("%.2f", stats.Summarize(xs).Median)
		}
		fmt.Fprintf(b, "%-52s%10s%10s%10s\n", r.title, of(p50Part), of(p99Part), of(eachPart))
	}
	for _, size := range changeSizes {
		fmt.Fprintf(b, "%-52s%10.4f\n", fmt.Sprintf("a change among %d endpoints", size), stats.Summarize(rep.series[changeName(size)]).Median)
	}
}

func (rep *report) printMemory(b *strings.Builder) {
	const mib = 1 << 20
	m := rep.all
	each := float64(m.Heap-rep.start.Heap) / float64(m.Stations)
	fmt.Fprintf(b, "\nthe process that follows %d endpoints: heap %.1f MiB, %.0f bytes for each, %.1f MiB for %d; resident %.1f MiB, at most %.1f MiB\n",
		m.Stations, float64(m.Heap)/mib, each, each*total/mib, total, float64(m.Resident)/mib, float64(m.Peak)/mib)
}
