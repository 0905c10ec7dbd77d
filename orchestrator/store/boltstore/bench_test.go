package boltstore_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
)

// BenchmarkUpdate measures a commit to disk: an attach has four, a detach two.
func BenchmarkUpdate(b *testing.B) {
	s, err := boltstore.Open(filepath.Join(b.TempDir(), "db"))
	require.NoError(b, err)
	defer s.Close()
	for b.Loop() {
		_, err := s.Update(b.Context(), func(tx store.Tx) error { return tx.Put("a", make([]byte, 700)) })
		require.NoError(b, err)
	}
}
