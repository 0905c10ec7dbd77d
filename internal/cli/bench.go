package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/partfile"
)

// benchOptions are what the command line says beside the request.
type benchOptions struct {
	topologies []string
	workloads  []string
	time       time.Duration
	samples    string // path of a file
}

func (a *app) bench() *cobra.Command {
	var req brfusev1.BenchRequest
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench --vm VM --peer VM",
		Short: "Measure the network between two VMs, with and without brfuse",
		Long: `bench measures the network between two VMs, in rounds, by the load generator in
their agents: a server in --vm, a client in --peer. Topologies are

  native  processes in the VMs, over the VMs' own NICs
  nat     pods in the VMs as Docker has them, behind those NICs: in each VM, a
          bridge, a veth pair and an nftables table "brfuse-bench" are made for the
          time of its measurement, and forwarding is turned on for the NIC
  fused   pods with vNICs of their own, on --network

native and nat need an IPv4 address of --vm that --peer reaches, with any TCP and UDP
port; --topologies native,fused makes neither bridge nor rules in the VMs, and
--topologies fused needs no such address. While it is measured, the server takes
load from whoever reaches it. An agent that was started with -no-bench refuses.

Workloads are KIND[_rx]/SIZE[/flows=N], with the kinds tcp_rr (requests and
responses), tcp_crr (the same, each by a connection of its own), tcp_stream, udp_rr
and udp_stream. A stream flows from --vm to --peer, and with _rx the other way. What is
shown are medians of the rounds, and their ratios to native, or to the first topology
where native is left out, with the interval that they lie in by 95 %.

All that is made is removed at the end, also when bench is interrupted.`,
		Example: `  brfuse bench --vm vm1 --peer vm2 --network blue
  brfuse bench --vm vm1 --peer vm2 --topologies native,fused --rounds 10 --samples bench.jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			if req.GetVm() == "" || req.GetPeer() == "" {
				return usagef("bench needs --vm and --peer; see `brfuse bench --help`")
			}
			if req.GetRounds() == 0 || o.time <= 0 {
				return usagef("bench needs --rounds and --time above 0; see `brfuse bench --help`")
			}
			if len(o.topologies) == 0 || len(o.workloads) == 0 {
				return usagef("bench needs --topologies and --workloads that name some; see `brfuse bench --help`")
			}
			if !c.Flags().Changed("timeout") {
				a.timeout = benchTimeout(&req, o)
			}
			req.Topologies, req.Workloads, req.Time = o.topologies, o.workloads, durationpb.New(o.time)
			return a.runBench(c.Context(), &req, o)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vm, "vm", "", "VM of the server (required)")
	f.StringVar(&req.Peer, "peer", "", "VM of the client (required)")
	f.StringVar(&req.Network, "network", "", "network of the fused pods (default: the only one)")
	f.StringSliceVar(&o.topologies, "topologies", []string{"native", "nat", "fused"}, "what is measured in each round")
	f.StringSliceVar(&o.workloads, "workloads", []string{"tcp_rr/1024", "tcp_stream/16384", "udp_stream/64"}, "with what it is measured")
	f.Uint32Var(&req.Rounds, "rounds", 5, "how many rounds")
	f.DurationVar(&o.time, "time", time.Second, "how long each sample is measured")
	f.StringVar(&o.samples, "samples", "", "write each sample to this file, as a line of JSON")
	return c
}

// benchTimeout is far more than a bench takes, and less than for ever.
func benchTimeout(req *brfusev1.BenchRequest, o benchOptions) time.Duration {
	const setUp, perSample = 2 * time.Minute, time.Minute
	times := time.Duration(max(req.GetRounds(), 1)) * time.Duration(max(len(o.topologies), 1))
	return setUp + times*(setUp+time.Duration(max(len(o.workloads), 1))*(perSample+2*o.time))
}

// runBench measures, and prints what came out.
func (a *app) runBench(ctx context.Context, req *brfusev1.BenchRequest, o benchOptions) (err error) {
	out := io.Discard
	if o.samples != "" {
		f, cerr := partfile.Create(o.samples)
		if cerr != nil {
			return fmt.Errorf("create file of samples: %w", cerr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	res := newBenchOutcome(req)
	err = a.call(ctx, func(ctx context.Context, cl brfusev1.BrfuseClient) error {
		stream, err := cl.Bench(ctx, req)
		if err != nil {
			return err
		}
		return a.followBench(stream, res, out)
	})
	if err != nil {
		if n := res.whole(len(req.GetWorkloads())); n > 0 && a.output != "json" {
			fmt.Fprintf(a.main.Stderr, "it ended early; this is what %d whole rounds have found\n", n)
			res.compare()
			err = errors.Join(err, a.printBench(res))
		}
		return err
	}
	res.compare()
	return a.printBench(res)
}

// followBench takes what the daemon tells until the end.
func (a *app) followBench(stream grpc.ServerStreamingClient[brfusev1.BenchEvent], res *benchOutcome, samples io.Writer) error {
	show := newProgress(a.main.Stderr)
	defer show.end()
	enc := json.NewEncoder(samples)
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("measure: brfused ended it early: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		switch {
		case ev.GetProgress() != nil:
			show.step(ev.GetProgress())
		case ev.GetSample() != nil:
			s := fromBenchSample(ev.GetSample())
			res.add(s)
			if err := enc.Encode(s); err != nil {
				return fmt.Errorf("write sample: %w", err)
			}
		case ev.GetDone() != nil:
			res.Network, res.NativeAddress = ev.GetDone().GetNetwork(), ev.GetDone().GetNativeAddress()
			return nil
		}
	}
}

// progress shows how far a bench is: on a terminal in one line, else in many.
type progress struct {
	w     io.Writer
	tty   bool
	began time.Time
	width int // of what is shown
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		p.tty = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) step(m *brfusev1.BenchProgress) {
	line := fmt.Sprintf("%d/%d samples, %s: %s", m.GetDone(), m.GetTotal(), time.Since(p.began).Round(time.Second), m.GetStep())
	if !p.tty {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-len(line))))
	p.width = len(line)
}

// end leaves the line.
func (p *progress) end() {
	if p.tty && p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
	}
}

func (a *app) printBench(res *benchOutcome) error {
	if a.output == "json" {
		enc := json.NewEncoder(a.main.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(res)
	}
	w := tabwriter.NewWriter(a.main.Stdout, 0, 0, 2, ' ', 0)
	res.table(w)
	return w.Flush()
}
