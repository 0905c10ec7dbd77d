package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/grpc"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/netbench"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// newBench returns what measures, when the prober of VMs can have them measure. Else
// it is nil.
func newBench(log *slog.Logger, orch *orchestrator.Orchestrator, vms Prober) *netbench.Bench {
	if g, ok := vms.(netbench.Guests); ok {
		return netbench.New(g, orch, log)
	}
	return nil
}

// Bench implements the call of that name.
func (s *server) Bench(req *brfusev1.BenchRequest, stream grpc.ServerStreamingServer[brfusev1.BenchEvent]) error {
	ctx := stream.Context()
	if s.bench == nil {
		return fmt.Errorf("measure: %w", vnic.ErrUnsupported)
	}
	r, err := benchFromProto(req)
	if err == nil {
		r, err = r.Complete()
	}
	if err != nil {
		return err
	}
	for _, vm := range []string{r.Server, r.Client} {
		if _, err := s.orch.VM(ctx, vm); err != nil {
			return err
		}
	}
	if slices.Contains(r.Topologies, netbench.Fused) {
		if r.Network, err = s.benchNetwork(ctx, r.Network); err != nil {
			return err
		}
	}
	// When the client goes away, or the daemon is told to stop, ctx ends, and Run
	// returns when all is removed.
	done, err := s.bench.Run(ctx, r, &benchWatcher{stream: stream, total: r.Samples()})
	if err != nil {
		return err
	}
	end := &brfusev1.BenchDone{Network: r.Network}
	if done.NativeAddress.IsValid() {
		end.NativeAddress = done.NativeAddress.String()
	}
	return stream.Send(&brfusev1.BenchEvent{Event: &brfusev1.BenchEvent_Done{Done: end}})
}

// benchNetwork returns the network of the fused pods: the named one, if it is there,
// or the only one. It is better known now than after some rounds.
func (s *server) benchNetwork(ctx context.Context, name string) (string, error) {
	if name == "" {
		return s.onlyNetwork(ctx)
	}
	nets, err := s.orch.Networks(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(nets, func(n vnic.Network) bool { return n.Name == name }) {
		return "", fmt.Errorf("network %.64q: %w", name, vnic.ErrUnknownNetwork)
	}
	return name, nil
}

func benchFromProto(m *brfusev1.BenchRequest) (netbench.Request, error) {
	r := netbench.Request{
		Server: m.GetVm(), Client: m.GetPeer(), Network: m.GetNetwork(), Topologies: m.GetTopologies(),
		Rounds: clampInt(m.GetRounds()), Time: m.GetTime().AsDuration(),
	}
	if len(m.GetWorkloads()) > netbench.MaxWorkloads {
		return r, fmt.Errorf("%d workloads are more than %d: %w", len(m.GetWorkloads()), netbench.MaxWorkloads, vnic.ErrInvalid)
	}
	for _, name := range m.GetWorkloads() {
		w, err := netbench.ParseWorkload(name)
		if err != nil {
			return r, err
		}
		r.Workloads = append(r.Workloads, w)
	}
	return r, nil
}

// benchWatcher tells the client of a bench how far it is.
type benchWatcher struct {
	stream grpc.ServerStreamingServer[brfusev1.BenchEvent]
	total  int
}

// Step implements [netbench.Watcher].
func (w *benchWatcher) Step(done int, what string) error {
	return w.stream.Send(&brfusev1.BenchEvent{Event: &brfusev1.BenchEvent_Progress{Progress: &brfusev1.BenchProgress{
		Done: clampUint32(done), Total: clampUint32(w.total), Step: what,
	}}})
}

// Sample implements [netbench.Watcher].
func (w *benchWatcher) Sample(s netbench.Sample) error {
	return w.stream.Send(&brfusev1.BenchEvent{Event: &brfusev1.BenchEvent_Sample{Sample: &brfusev1.BenchSample{
		Topology: s.Topology, Workload: s.Workload, Round: clampUint32(s.Round),
		Metrics: s.Metrics, Drops: s.Drops, Latency: s.Latency,
	}}})
}

// benchLeftovers returns what benches have attached whose daemon died.
func (p *parts) benchLeftovers(ctx context.Context) []vnic.ID {
	list, err := p.orch.List(ctx, orchestrator.Filter{})
	if err != nil {
		p.log.Warn("look for what a bench left", "error", err)
	}
	return netbench.Leftovers(list)
}

// dropBenches detaches what benches have left: none outlives its daemon. What can't be
// detached now, the orchestrator goes on with.
func (p *parts) dropBenches(ctx context.Context, left []vnic.ID) {
	for _, id := range left {
		if _, err := p.orch.Detach(ctx, id); err != nil {
			p.log.Warn("detach what a bench left", "attachment", id, "error", err)
			continue
		}
		p.log.Info("detached what a bench left", "attachment", id)
	}
}
