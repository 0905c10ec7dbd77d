package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"sync"

	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/netnsx"
)

// WorkerArg is the argument by which brfuse-agent is a worker.
const WorkerArg = "-bench-worker"

// maxLine bounds an answer of a worker, in bytes.
const maxLine = 1 << 20

// order is what a worker is told, a line of JSON each. It answers each by a reply
// before the next one.
type order struct {
	Op    string           `json:"op"` // "serve", "reach" or "run"
	Port  uint16           `json:"port,omitempty"`
	Reach []netip.AddrPort `json:"reach,omitempty"`
	To    netip.AddrPort   `json:"to,omitzero"`
	Spec  netload.Spec     `json:"spec"`
}

type reply struct {
	Error   string           `json:"error,omitempty"`
	Reached []netip.AddrPort `json:"reached,omitempty"`
	Result  *netload.Result  `json:"result,omitempty"`
}

// worker is a process that measures. Its methods are safe for concurrent use.
type worker struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan reply
	done chan struct{} // closed when the process has ended and was waited for
	turn chan struct{} // holds a token; who has it may call
	once sync.Once     // of kill

	says tail // on stderr

	serves bool // guarded by turn
}

// startWorker starts a worker in a namespace, or in this thread's when ns is nil.
func startWorker(cfg Config, ns *netnsx.NS) (*worker, error) {
	w := &worker{out: make(chan reply), done: make(chan struct{}), turn: make(chan struct{}, 1)}
	w.turn <- struct{}{}
	w.cmd = exec.Command(cfg.Worker[0], cfg.Worker[1:]...) //nolint:gosec,noctx // this program; kill ends it
	w.cmd.Stderr = &w.says
	in, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the process that measures: %w", err)
	}
	w.in = in
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the process that measures: %w", err)
	}
	start := w.cmd.Start
	if ns != nil {
		start = func() error { return ns.Do(w.cmd.Start) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("start the process that measures: %w", err)
	}
	go w.read(out)
	return w, nil
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// read passes answers on until the process ends.
func (w *worker) read(out io.Reader) {
	defer close(w.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			r = reply{Error: fmt.Sprintf("read its answer: %v", err)}
		}
		w.out <- r
	}
	_ = w.cmd.Process.Kill() // a worker that can't be read any more
	_ = w.cmd.Wait()         // how it ended is of no interest: says has it
	close(w.out)
}

// kill ends the process and waits for that.
func (w *worker) kill() {
	w.once.Do(func() {
		_ = w.cmd.Process.Kill() // it may have ended
		_ = w.in.Close()
		for range w.out { // read must not wait for who takes an answer
		}
	})
	<-w.done
}

// call gives one order. When ctx ends, so does the worker: a load that nobody waits
// for must not go on.
func (w *worker) call(ctx context.Context, o order) (reply, error) {
	select {
	case <-w.turn:
	case <-w.done:
		return reply{}, w.ended()
	case <-ctx.Done():
		return reply{}, fmt.Errorf("wait for another call of this bench: %w", ctx.Err())
	}
	defer func() { w.turn <- struct{}{} }()
	return w.callLocked(ctx, o)
}

func (w *worker) callLocked(ctx context.Context, o order) (reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = w.cmd.Process.Kill() })
	defer stop()
	if err := json.NewEncoder(w.in).Encode(o); err != nil {
		w.kill() // it takes no orders any more
		return reply{}, w.ended()
	}
	r, ok := <-w.out
	switch {
	case ctx.Err() != nil:
		return reply{}, fmt.Errorf("no end of it: %w", context.Cause(ctx))
	case !ok:
		return reply{}, w.ended()
	case r.Error != "":
		return reply{}, errors.New(r.Error)
	}
	return r, nil
}

func (w *worker) ended() error {
	if said := w.says.String(); said != "" {
		return fmt.Errorf("%w: it said: %s", errEnded, said)
	}
	return errEnded
}

// serve starts the server, unless it runs.
func (w *worker) serve(ctx context.Context, port uint16) error {
	select {
	case <-w.turn:
	case <-w.done:
		return w.ended()
	case <-ctx.Done():
		return fmt.Errorf("wait for another call of this bench: %w", ctx.Err())
	}
	defer func() { w.turn <- struct{}{} }()
	if w.serves {
		return nil
	}
	_, err := w.callLocked(ctx, order{Op: "serve", Port: port})
	w.serves = err == nil
	return err
}

func (w *worker) reach(ctx context.Context, to []netip.AddrPort) ([]netip.AddrPort, error) {
	r, err := w.call(ctx, order{Op: "reach", Reach: to})
	return r.Reached, err
}

func (w *worker) run(ctx context.Context, to netip.AddrPort, spec netload.Spec) (Result, error) {
	r, err := w.call(ctx, order{Op: "run", To: to, Spec: spec})
	if err != nil {
		return Result{}, err
	}
	if r.Result == nil {
		return Result{}, errors.New("an answer without a result")
	}
	return toResult(*r.Result)
}

// maxTail is how much of what a worker says is kept, in bytes.
const maxTail = 1024

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex // guards end
	end []byte
}

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	t.end = t.end[max(0, len(t.end)-maxTail):]
	return len(b), nil
}

// String returns the end.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}
