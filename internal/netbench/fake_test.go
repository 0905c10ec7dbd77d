package netbench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// world is two VMs and an orchestrator in memory. It writes down what is done.
type world struct {
	mu     sync.Mutex // guards what is below
	did    []string
	places map[string]string // by VM: topology
	pods   map[vnic.ID]string
	fail   string                                            // beginning of the thing that fails, once
	at     func(what string)                                 // called at each thing
	reach  []netip.Addr                                      // that the client reaches
	result func(netload.Spec) (guestlink.BenchResult, error) // default: good
}

var native = netip.MustParseAddr("192.0.2.1")

func newWorld() *world {
	return &world{places: map[string]string{}, pods: map[vnic.ID]string{}, reach: []netip.Addr{native}}
}

var errFake = errors.New("it is broken")

// do writes down what is done, and fails if it is to.
func (w *world) do(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.did = append(w.did, what)
	broken := w.fail != "" && strings.HasPrefix(what, w.fail)
	if broken {
		w.fail = ""
	}
	at := w.at
	w.mu.Unlock()
	if at != nil {
		at(what)
	}
	if broken {
		return errFake
	}
	return nil
}

// left is what there is.
func (w *world) left() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for vm, topology := range w.places {
		list = append(list, vm+" "+topology)
	}
	for _, pod := range w.pods {
		list = append(list, pod)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (w *world) BenchOpen(_ context.Context, vm string, o guestlink.BenchOrder) (guestlink.BenchPlace, error) {
	if err := w.do("open %s %s own=%s peer=%s", vm, o.Topology, o.Own, o.Peer); err != nil {
		return guestlink.BenchPlace{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.places[vm] != "" {
		return guestlink.BenchPlace{}, fmt.Errorf("%s is open: %w", w.places[vm], vnic.ErrInUse)
	}
	w.places[vm] = o.Topology
	p := guestlink.BenchPlace{Port: 4711, Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.7"), native}}
	if o.Topology != Native {
		p.Netns = "/proc/7/ns/net"
	}
	return p, nil
}

func (w *world) BenchServe(_ context.Context, vm, _ string) (uint16, error) {
	return 4711, w.do("serve %s", vm)
}

func (w *world) BenchReach(_ context.Context, vm, _ string, to []netip.Addr, port uint16) ([]netip.Addr, error) {
	return w.reach, w.do("reach %v:%d from %s", to, port, vm)
}

func (w *world) BenchRun(ctx context.Context, vm, _ string, to netip.AddrPort, spec netload.Spec) (guestlink.BenchResult, error) {
	if err := errors.Join(w.do("run %s to %s, %s reverse=%t", vm, to, spec.Kind, spec.Reverse), ctx.Err()); err != nil {
		return guestlink.BenchResult{}, err
	}
	if w.result != nil {
		return w.result(spec)
	}
	return good(spec), nil
}

// good is a result of a second.
func good(spec netload.Spec) guestlink.BenchResult {
	r := guestlink.BenchResult{
		Elapsed: time.Second, Sent: 1100, Received: 1000, Bytes: 1024 * 1000,
		Client: guestlink.BenchCost{Elapsed: time.Second, User: 100 * time.Millisecond, Softirq: 200 * time.Millisecond},
		Server: guestlink.BenchCost{Elapsed: time.Second, System: 300 * time.Millisecond, IRQ: 100 * time.Millisecond, Retransmits: 2, Drops: map[string]uint64{"eth0": 3}},
	}
	switch spec.Kind {
	case netload.TCPRR:
		r.Latency = netload.NewHistogram()
		for range 1000 {
			r.Latency.Record(time.Millisecond)
		}
	case netload.UDPStream:
		r.Lost = 100
	}
	return r
}

func (w *world) BenchClose(ctx context.Context, vm, _ string) error {
	if err := errors.Join(w.do("close %s", vm), ctx.Err()); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.places, vm)
	return nil
}

func (w *world) Attach(_ context.Context, req vnic.Request) (vnic.Attachment, error) {
	if err := w.do("attach %s %s %s", req.VM, req.Netns, req.Network); err != nil {
		return vnic.Attachment{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id := vnic.ID(fmt.Sprintf("%010x", len(w.did)))
	w.pods[id] = "pod in " + req.VM
	return vnic.Attachment{ID: id, Request: req, Leases: []netip.Prefix{netip.MustParsePrefix("fd00::2/64"), netip.MustParsePrefix("10.1.0.2/24")}}, nil
}

func (w *world) Detach(_ context.Context, id vnic.ID) (vnic.Attachment, error) {
	w.mu.Lock()
	pod := w.pods[id]
	w.mu.Unlock()
	if err := w.do("detach %s", pod); err != nil {
		return vnic.Attachment{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, id)
	return vnic.Attachment{}, nil
}

// notes is a Watcher.
type notes struct {
	steps   []string
	samples []Sample
	err     error // of the next sample
}

func (n *notes) Step(done int, what string) error {
	n.steps = append(n.steps, fmt.Sprintf("%d %s", done, what))
	return nil
}

func (n *notes) Sample(s Sample) error {
	n.samples = append(n.samples, s)
	return n.err
}
