package daemon

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
	"github.com/brfuse/brfuse/vnic"
)

// TestCopyStoreToEtcd copies a file into a real etcd, once.
func TestCopyStoreToEtcd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "brfuse.db")
	db, err := boltstore.Open(file)
	require.NoError(t, err)
	conn := orchestratortest.New().Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: db, Host: conn, Guest: conn, VMs: conn})
	require.NoError(t, err)
	_, err = orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	require.NoError(t, err)
	cfg := Config{State: file, Log: slog.New(slog.DiscardHandler)}
	_, err = CopyStore(t.Context(), cfg)
	require.ErrorContains(t, err, "name the target by --store")
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cfg.Cluster = Cluster{Store: "etcd://" + cluster.Endpoints()[0], Hypervisor: "hv1"}
	_, err = CopyStore(t.Context(), cfg)
	require.ErrorIs(t, err, store.ErrLocked)
	require.ErrorContains(t, err, "stop brfused first")
	require.NoError(t, orch.Close())
	require.NoError(t, db.Close())

	n, err := CopyStore(t.Context(), cfg)
	require.NoError(t, err)
	assert.Positive(t, n)
	_, err = CopyStore(t.Context(), cfg)
	require.ErrorIs(t, err, store.ErrNotEmpty)
	cfg.State += "x"
	require.NoError(t, os.WriteFile(cfg.State, []byte("none"), 0o600))
	_, err = CopyStore(t.Context(), cfg)
	require.ErrorContains(t, err, "damaged")
	require.NotContains(t, err.Error(), "stop brfused")
	cfg.State += "x"
	_, err = CopyStore(t.Context(), cfg)
	require.ErrorContains(t, err, "name the database by --state")
}
