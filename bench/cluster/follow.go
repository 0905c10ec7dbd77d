package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/vnic"
)

// followCommand is the first argument of the process that follows all endpoints, which
// is this program too. The second is etcd's endpoints. It prints its memory as a line of
// JSON when it has started, and for each line of its input, which is how many stations
// to wait for first.
const followCommand = "follow"

const followLimit = time.Minute

// memory is that of the process that follows.
type memory struct {
	Stations int `json:"stations"`
	// Heap is what is reachable. Resident is what the process has, when what it needs
	// no more was given back, and Peak the most that it ever had. All in bytes.
	Heap     uint64 `json:"heap"`
	Resident uint64 `json:"resident"`
	Peak     uint64 `json:"peak"`
}

// follow is the process that follows.
func follow(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) (err error) {
	s, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: strings.Split(strings.Join(args, ","), ",")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }() //nolint:contextcheck // Close has none
	seen := &stations{macs: map[vnic.MAC]bool{}, changed: make(chan struct{})}
	out := json.NewEncoder(stdout)
	if err := tell(out, 0); err != nil {
		return err
	}
	f := fabric.Start(fabric.Config{Store: s, Self: "follower", Overlay: seen}) //nolint:contextcheck // Close ends it
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Use(ctx, network); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		if err := seen.wait(ctx, n); err != nil {
			return err
		}
		if err := tell(out, n); err != nil {
			return err
		}
	}
	runtime.KeepAlive(f)
	return lines.Err()
}

// tell prints how much memory there is.
func tell(out *json.Encoder, stations int) error {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	resident, err := statusField(status, "VmRSS")
	if err != nil {
		return err
	}
	peak, err := statusField(status, "VmHWM")
	if err != nil {
		return err
	}
	return out.Encode(memory{Stations: stations, Heap: m.HeapAlloc, Resident: resident, Peak: peak})
}

// statusField returns what a /proc/PID/status tells in kB, in bytes.
func statusField(status []byte, name string) (uint64, error) {
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("read memory of this process: no %s", name)
}

// stations counts what a fabric declares.
type stations struct {
	mu      sync.Mutex
	macs    map[vnic.MAC]bool // guarded by mu
	changed chan struct{}     // guarded by mu; closed and replaced at each change
}

// wait waits for a number of stations.
func (s *stations) wait(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	for {
		s.mu.Lock()
		have, changed := len(s.macs), s.changed
		s.mu.Unlock()
		if have == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d stations, %d are there: %w", n, have, ctx.Err())
		}
	}
}

func (s *stations) change(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	close(s.changed)
	s.changed = make(chan struct{})
}

// ReplaceStations implements [fabric.Overlay], as the methods below do.
func (s *stations) ReplaceStations(_ context.Context, _ string, all []vnic.Station) error {
	s.change(func() {
		clear(s.macs)
		for _, st := range all {
			s.macs[st.MAC] = true
		}
	})
	return nil
}

func (s *stations) SetStations(_ context.Context, _ string, some []vnic.Station) error {
	s.change(func() {
		for _, st := range some {
			s.macs[st.MAC] = true
		}
	})
	return nil
}

func (s *stations) RemoveStations(_ context.Context, _ string, macs []vnic.MAC) error {
	s.change(func() {
		for _, m := range macs {
			delete(s.macs, m)
		}
	})
	return nil
}

// follower is the process that follows, for the one that started it.
type follower struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	// start is its memory before it read the store.
	start memory
}

// startFollower starts it. It ends with ctx at the latest.
func startFollower(ctx context.Context, endpoints []string, stderr io.Writer) (*follower, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, followCommand, strings.Join(endpoints, ","))
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f := &follower{cmd: cmd, in: in, out: json.NewDecoder(out)}
	if err := f.out.Decode(&f.start); err != nil {
		return nil, errors.Join(fmt.Errorf("start the process that follows: %w", err), f.close())
	}
	return f, nil
}

// memory returns its memory when it has that many stations.
func (f *follower) memory(stations int) (m memory, err error) {
	if _, err := fmt.Fprintln(f.in, stations); err != nil {
		return m, err
	}
	if err := f.out.Decode(&m); err != nil {
		return m, fmt.Errorf("ask the process that follows: %w", err)
	}
	return m, nil
}

func (f *follower) close() error { return errors.Join(f.in.Close(), f.cmd.Wait()) }
