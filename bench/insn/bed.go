package main

import (
	"context"
	_ "embed" // the peer
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/brfuse/brfuse/bench/internal/insn"
	"github.com/brfuse/brfuse/bench/internal/pin"
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/internal/rig"
	"github.com/brfuse/brfuse/integration/vmlab"
)

//go:embed peer/peer.c
var peerSource []byte

const (
	peerPath = "/sbin/bench-peer"
	port     = 6000 // published in all topologies
	runLimit = 3 * time.Minute
)

// kernelOptions keep the kernel from filling memory with zeros each time that it takes
// some. Emulated, that is an instruction for every few bytes; and how often the
// allocator takes new pages for packets, instead of some that it has, depends on how many
// of them wait to be sent just then, so on how fast the hypervisor is.
const kernelOptions = "init_on_alloc=0"

// counted is a rig whose guests' instructions are counted.
type counted struct {
	rig      *rig.Rig
	scratch  *vmlab.Scratch
	peer     string          // the program of peer/peer.c, here
	cpu      int             // that of guests and client
	counters []*insn.Counter // one for each guest
	setup    *rig.Setup
	server   *rig.Proc

	mu sync.Mutex               // guards what is below, while guests boot
	of map[string]*insn.Counter // by guest
}

// newBed builds the rig.
func newBed(ctx context.Context, pair bool, progress io.Writer) (*counted, error) {
	b := &counted{of: map[string]*insn.Counter{}}
	if err := b.setUp(ctx, pair, progress); err != nil {
		return nil, errors.Join(err, b.close()) //nolint:contextcheck // has to be done when ctx has ended too
	}
	return b, nil
}

func (b *counted) setUp(ctx context.Context, pair bool, progress io.Writer) (err error) {
	if err := os.Setenv("BRFUSE_ACCEL", "tcg"); err != nil { // there is nothing to count otherwise
		return err
	}
	if b.scratch, err = vmlab.NewScratch("brfuse-insn"); err != nil {
		return err
	}
	plugin, err := insn.Build(ctx, b.scratch.Dir)
	if err != nil {
		return err
	}
	for range guests(pair) {
		c, err := insn.NewCounter(plugin, b.scratch.Dir)
		if err != nil {
			return err
		}
		b.counters = append(b.counters, c)
	}
	b.peer = filepath.Join(b.scratch.Dir, "peer")
	if err := insn.Compile(ctx, b.peer, peerSource, "-static"); err != nil {
		return err
	}
	b.rig, err = rig.New(ctx, rig.Options{
		Pair: pair, CPUs: 1, QEMUArgs: b.give, Append: kernelOptions,
		Image:    vmlab.Image{Files: map[string]string{peerPath: b.peer}},
		Progress: func(what string) { fmt.Fprintln(progress, what) },
	})
	if err != nil {
		return err
	}
	return b.pin()
}

// pin has the guests and the client share the last CPU. Whether a guest has gone to
// sleep before an interrupt comes, and whether those of a packet sent and of the one
// received come together, is worth a fifth of a round trip's instructions, and up to
// which CPUs are how busy. When QEMU's threads and the client share one, each runs until
// it waits for another, always in the same order.
func (b *counted) pin() error {
	all, err := pin.Allowed()
	if err != nil {
		return err
	}
	b.cpu = all[len(all)-1]
	for _, vm := range b.rig.VMs() {
		err = errors.Join(err, pin.Process(vm.PID(), []int{b.cpu}))
	}
	return err
}

func guests(pair bool) int {
	if pair {
		return 2
	}
	return 1
}

// give gives a guest the next counter. Guests are booted at once.
func (b *counted) give(guest string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counters[len(b.of)]
	b.of[guest] = c
	return c.QEMUArgs()
}

func (b *counted) close() error {
	var errs []error
	if b.rig != nil {
		errs = append(errs, b.rig.Close())
	}
	for _, c := range b.counters {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, b.scratch.Remove())...)
}

// read returns what all guests have executed.
func (b *counted) read() uint64 {
	var sum uint64
	for _, c := range b.counters {
		sum += c.Read()
	}
	return sum
}

// Up sets the topology up and starts the server.
func (b *counted) Up(ctx context.Context, topology string) (err error) {
	if b.setup, err = b.rig.Up(ctx, topology); err != nil {
		return err
	}
	b.server, err = b.setup.Server.Start(ctx, peerPath, "serve", strconv.Itoa(port))
	if err != nil {
		return err
	}
	if _, err = b.setup.Client.RunTool(ctx, "await", "--open", "--to", netip.AddrPortFrom(b.setup.Addr, port).String()); err != nil {
		return err
	}
	return b.settle(ctx)
}

// A guest in which nothing goes on executes 0.3 million instructions a second, and
// one in which a topology or a program has just been started tens of times that.
const (
	quietTime  = 400 * time.Millisecond
	quietMost  = 300_000 // in that time, for each guest
	quietLimit = 20 * time.Second
)

// settle waits until the guests are quiet.
func (b *counted) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	t := time.NewTicker(quietTime)
	defer t.Stop()
	for last := b.read(); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("await that the guests are quiet for %s: %w", quietLimit, context.Cause(ctx))
		}
		now := b.read()
		if now-last < uint64(quietMost*len(b.counters)) {
			return nil
		}
		last = now
	}
}

func (b *counted) Down(ctx context.Context) error {
	return errors.Join(b.server.Stop(ctx), b.setup.Down(ctx))
}

// Run runs a workload and returns what it has cost for each message and KiB.
func (b *counted) Run(ctx context.Context, workload string) (map[string]float64, error) {
	if workload == idle {
		return b.idle(ctx)
	}
	count, err := countOf(workload)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	w := result.ParseWorkload(workload)
	if w.Kind == burstKind {
		return b.receive(ctx, w.Size)
	}
	return b.dial(ctx, w, count)
}

// dial runs the client. That a client in a guest starts, and ends, is counted too: a
// hundredth of the whole, the same in each topology.
func (b *counted) dial(ctx context.Context, w result.Workload, count int) (map[string]float64, error) {
	argv := []string{
		b.peer, "dial", b.setup.Addr.String(), strconv.Itoa(port), w.Kind, strconv.Itoa(w.Size), strconv.Itoa(count),
	}
	if b.setup.Client.Guest() != nil {
		argv[0] = peerPath
	} else {
		argv = append(argv, strconv.Itoa(b.cpu))
	}
	read := b.read
	if w.Kind == "udp_stream" { // the sender's alone: how many the other guest takes is up to the machine
		read = b.of[b.setup.Server.Guest().Name()].Read
	}
	before, began := read(), time.Now()
	res, err := b.setup.Client.Run(ctx, argv...)
	n, took := float64(read()-before), time.Since(began).Seconds()
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w; server: %s", err, b.server.Log())
	}
	m := map[string]float64{total: n, elapsed: took, result.Instructions: n / float64(count)}
	if unit(w.Name) == result.InstructionsKiB {
		m[result.InstructionsKiB] = n * 1024 / float64(count*w.Size)
	}
	return m, nil
}

// idle counts while nothing is done.
func (b *counted) idle(ctx context.Context) (map[string]float64, error) {
	before, began := b.read(), time.Now()
	t := time.NewTimer(idleTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	n, took := float64(b.read()-before), time.Since(began).Seconds()
	return map[string]float64{perSecond: n / took, total: n, elapsed: took}, nil
}
