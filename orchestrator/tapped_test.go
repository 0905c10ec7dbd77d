package orchestrator_test

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// tapped is a store whose reads can be made to fail, and be followed by something.
type tapped struct {
	store.Store

	mu   sync.Mutex
	fail string              // guarded by mu; reads of this key or prefix fail
	then func(read []string) // guarded by mu; called after each View with what it read
}

func (s *tapped) set(fail string, then func(read []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.then = fail, then
}

// View implements [store.Store].
func (s *tapped) View(ctx context.Context, fn func(store.ReadTx) error) error {
	s.mu.Lock()
	fail, then := s.fail, s.then
	s.mu.Unlock()
	var read []string
	err := s.Store.View(ctx, func(tx store.ReadTx) error {
		read = nil
		return fn(tappedTx{tx, fail, &read})
	})
	if then != nil {
		then(read)
	}
	return err
}

type tappedTx struct {
	store.ReadTx
	fail string
	read *[]string
}

func (t tappedTx) note(key string) error {
	*t.read = append(*t.read, key)
	if t.fail != "" && key == t.fail {
		return errBoom
	}
	return nil
}

// Get implements [store.ReadTx].
func (t tappedTx) Get(key string) (store.Item, error) {
	if err := t.note(key); err != nil {
		return store.Item{}, err
	}
	return t.ReadTx.Get(key)
}

// Scan implements [store.ReadTx].
func (t tappedTx) Scan(prefix string, limit int) ([]store.Item, error) {
	if err := t.note(prefix); err != nil {
		return nil, err
	}
	return t.ReadTx.Scan(prefix, limit)
}

// tap starts the daemon anew on a store that is tapped.
func (h *hypervisor) tap() *tapped {
	h.t.Helper()
	h.crash()
	s := &tapped{Store: h.shared}
	h.shared = s
	h.start()
	pass(time.Second)
	return s
}

// stand returns the hypervisor's own addresses in the overlay.
func (h *hypervisor) stand() []netip.Prefix {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.own["over"])
}

// publish has a service lead to the pods web of the overlay from all hypervisors.
func (h *hypervisor) publish() {
	h.t.Helper()
	_, err := h.orch.SetService(h.t.Context(), vnic.Service{Name: "web", Network: "over", Protocol: "tcp", Port: 8080, Target: 80, Pod: "web"})
	require.NoError(h.t, err)
	pass(time.Second)
}

// keys returns those of the store that begin with prefix.
func (c cluster) keys(prefix string) []string {
	c.t.Helper()
	var keys []string
	require.NoError(c.t, c.shared.View(c.t.Context(), func(tx store.ReadTx) error {
		items, err := tx.Scan(prefix, 0)
		for _, it := range items {
			keys = append(keys, it.Key)
		}
		return err
	}))
	return keys
}

func addrs(list []netip.Prefix) []netip.Addr {
	var as []netip.Addr
	for _, p := range list {
		as = append(as, p.Addr())
	}
	return as
}

// logged is what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

// Write implements [io.Writer].
func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// String implements [fmt.Stringer].
func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
