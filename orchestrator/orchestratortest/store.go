package orchestratortest

import (
	"context"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// Store returns s as a daemon with this connection sees it: it fails once the
// connection has crashed, and counts as the call "update" for [Conn.CrashAt].
func (c *Conn) Store(s store.Store) store.Store { return &crashStore{Store: s, c: c} }

type crashStore struct {
	store.Store
	c *Conn
}

func (s *crashStore) View(ctx context.Context, fn func(store.ReadTx) error) error {
	if s.c.Crashed() {
		return ErrCrashed
	}
	return s.Store.View(ctx, fn)
}

func (s *crashStore) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	if err := s.c.reach("before update"); err != nil {
		return 0, err
	}
	rev, err := s.Store.Update(ctx, fn)
	if err != nil {
		return 0, err
	}
	return rev, s.c.reach("after update")
}
