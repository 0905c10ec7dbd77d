package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
)

// CopyStore copies what a single hypervisor has in a file into an empty store that
// several share, where it is the hypervisor of that name, and returns the number of keys.
// The daemon is stopped meanwhile, and pods run on. The file stays as it is.
func CopyStore(ctx context.Context, cfg Config) (n int, err error) {
	if cfg.Cluster.Store == "" || cfg.Cluster.Hypervisor == "" {
		return 0, errors.New("copy store: name the target by --store etcd://HOST:PORT, and this hypervisor by --hypervisor")
	}
	if _, err := os.Stat(cfg.State); errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("copy store: %w: name the database by --state", err)
	}
	from, err := boltstore.Open(cfg.State)
	switch {
	case errors.Is(err, store.ErrLocked):
		return 0, fmt.Errorf("copy store: %w: stop brfused first", err)
	case err != nil:
		return 0, fmt.Errorf("copy store: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, _, err := openStore(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return orchestrator.CopyStore(ctx, from, to, cfg.Cluster.Hypervisor)
}
