package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

// prepared is for how many flows a worker gets ready: as many as a user may ask for.
const prepared = netload.MaxFlows

// reachLimit bounds how long an address is tried.
const reachLimit = 3 * time.Second

// Main is a worker with the process's own input and output, and returns its exit
// code.
func Main(ctx context.Context) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := Work(ctx, os.Stdin, os.Stdout, log); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
		return 1
	}
	return 0
}

// Work is a worker: it takes orders from in and answers on out until in ends, which
// it does when the agent dies, or ctx. Its caller exits then, whatever it began.
func Work(ctx context.Context, in io.Reader, out io.Writer, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	netload.Prepare(prepared)
	observe := netcost.Observer(netcost.Options{Namespaces: []string{""}}) //nolint:contextcheck // who calls it has none
	h := &hand{observe: observe, log: log}
	defer h.close()
	orders := make(chan order)
	failed := make(chan error, 1)
	go func() { failed <- readOrders(ctx, in, orders) }()
	enc := json.NewEncoder(out)
	for {
		select {
		case o := <-orders:
			answer := make(chan reply, 1)
			go func() { answer <- h.do(ctx, o) }()
			select {
			case r := <-answer:
				if err := enc.Encode(r); err != nil {
					return fmt.Errorf("answer: %w", err)
				}
			case err := <-failed:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readOrders passes orders on until in ends.
func readOrders(ctx context.Context, in io.Reader, to chan<- order) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		select {
		case to <- o:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return lines.Err()
}

// hand does what a worker is told, one thing after the other.
type hand struct {
	observe netload.Observer
	log     *slog.Logger

	mu     sync.Mutex // guards server: close comes while something is done
	server *netload.Server
}

func (h *hand) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server != nil {
		_ = h.server.Close() // the process ends
	}
}

func (h *hand) do(ctx context.Context, o order) reply {
	r, err := h.try(ctx, o)
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func (h *hand) try(ctx context.Context, o order) (reply, error) {
	switch o.Op {
	case "serve":
		s, err := netload.Listen(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), o.Port), netload.Options{Observe: h.observe, Log: h.log})
		if err != nil {
			return reply{}, err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.server = s
		return reply{}, nil
	case "reach":
		reached, err := reach(ctx, o.Reach)
		return reply{Reached: reached}, err
	case "run":
		r, err := netload.Run(ctx, o.To, o.Spec, netload.RunOptions{Observe: h.observe})
		return reply{Result: &r}, err
	}
	return reply{}, fmt.Errorf("order %q is none", o.Op)
}

// reach returns which addresses take a connection, in order.
func reach(ctx context.Context, to []netip.AddrPort) ([]netip.AddrPort, error) {
	own, err := interfaces()
	if err != nil {
		return nil, err
	}
	mine := map[netip.Addr]bool{}
	for _, i := range own {
		for _, p := range i.addrs {
			mine[p.Addr()] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	took := make([]bool, len(to))
	var wg sync.WaitGroup
	for i, a := range to {
		if mine[a.Addr()] {
			continue
		}
		wg.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", a.String())
			if took[i] = err == nil; took[i] {
				_ = conn.Close() // that was all
			}
		})
	}
	wg.Wait()
	var reached []netip.AddrPort
	for i, a := range to {
		if took[i] {
			reached = append(reached, a)
		}
	}
	return reached, nil
}
