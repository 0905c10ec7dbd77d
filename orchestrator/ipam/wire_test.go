package ipam_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// wire is what a hypervisor's requests to the members of etcd go through.
type wire struct {
	listeners []net.Listener
	all       sync.WaitGroup // goroutines

	mu    sync.Mutex
	ends  map[net.Conn]bool // guarded by mu; of connections, both of each
	muted bool              // guarded by mu; replies are lost
	dead  bool              // guarded by mu
}

// newWire returns one to members that are at these addresses, whose Endpoints are
// then in the same order.
func newWire(t *testing.T, members []string) *wire {
	t.Helper()
	w := &wire{ends: map[net.Conn]bool{}}
	for _, to := range members {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
		require.NoError(t, err)
		w.listeners = append(w.listeners, l)
		w.all.Go(func() { w.accept(l, to) })
	}
	return w
}

// endpoints are where the members are reached by it.
func (w *wire) endpoints() (list []string) {
	for _, l := range w.listeners {
		list = append(list, l.Addr().String())
	}
	return list
}

func (w *wire) accept(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", to) //nolint:noctx // local
		if err != nil {
			c.Close()
			continue
		}
		w.mu.Lock()
		w.ends[c], w.ends[up] = true, true
		if w.dead {
			w.cutLocked()
		}
		w.mu.Unlock()
		w.all.Go(func() { w.pass(up, c, false) })
		w.all.Go(func() { w.pass(c, up, true) })
	}
}

// pass passes on what comes, but for replies while they are muted, until an end is closed.
func (w *wire) pass(to, from net.Conn, replies bool) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(writer(func(b []byte) (int, error) {
		w.mu.Lock()
		lost := replies && w.muted
		w.mu.Unlock()
		if lost {
			return len(b), nil
		}
		return to.Write(b)
	}), from)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ends, to)
	delete(w.ends, from)
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// mute has all replies be lost until cut.
func (w *wire) mute() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.muted = true
}

// cut ends all connections. New ones work.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutLocked()
}

func (w *wire) cutLocked() {
	for c := range w.ends {
		c.Close()
	}
	w.muted = false
}

// close ends all connections for ever.
func (w *wire) close() {
	for _, l := range w.listeners {
		l.Close()
	}
	w.mu.Lock()
	w.dead = true
	w.cutLocked()
	w.mu.Unlock()
	w.all.Wait()
}
