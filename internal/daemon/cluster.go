package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brfuse/brfuse/hostside"
	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/vnic"
)

// Cluster is how a daemon shares a store with those of other hypervisors.
type Cluster struct {
	// Store is the store's URL; see [etcdstore.ParseURL]. Empty: it is the file in State.
	Store string
	// Hypervisor is this one's name. Default: the host's.
	Hypervisor string
	// Underlay is this one's address between the hypervisors. Default: this one is in
	// no overlay.
	Underlay netip.Addr
	// ReleaseAfter is how long a hypervisor may be dead before others release what it
	// holds; 0: for ever.
	ReleaseAfter time.Duration
}

// complete fills in the name.
func (c Cluster) complete() (Cluster, error) {
	if c.ReleaseAfter < 0 {
		return c, fmt.Errorf("--release-dead %s: a time, or 0 to release nobody", c.ReleaseAfter)
	}
	if c.Store == "" || c.Hypervisor != "" {
		return c, nil
	}
	var err error
	if c.Hypervisor, err = os.Hostname(); err != nil {
		return c, fmt.Errorf("name of this hypervisor: %w: give it by --hypervisor", err)
	}
	return c, nil
}

// state names the store for people.
func (c Config) state() string { return cmp.Or(c.Cluster.Store, c.State) }

// aliveTTL is how long a hypervisor that is silent passes for alive.
const aliveTTL = 15 * time.Second

// shared is a store that several daemons share.
type shared interface {
	store.Store
	KeepAlive(ctx context.Context, key string, value []byte, ttl time.Duration, held func()) error
}

// openStore opens the store that cfg says. The second is nil for one that is not shared.
func openStore(ctx context.Context, cfg Config) (store.Store, shared, error) {
	if cfg.Cluster.Store == "" {
		if cfg.Cluster.Hypervisor != "" || cfg.Cluster.Underlay.IsValid() {
			return nil, nil, errors.New("--hypervisor and --underlay are for hypervisors that share a store; name it by --store etcd://HOST:PORT")
		}
		if err := os.MkdirAll(filepath.Dir(cfg.State), 0o700); err != nil {
			return nil, nil, fmt.Errorf("make folder of state: %w", err)
		}
		db, err := boltstore.Open(cfg.State)
		if err != nil {
			return nil, nil, err // not db: a nil *Store is no nil Store
		}
		return db, nil, nil
	}
	ec, err := etcdstore.ParseURL(cfg.Cluster.Store)
	if err != nil {
		return nil, nil, err
	}
	ec.Log = cfg.Log
	s, err := etcdstore.Open(ctx, ec)
	if err != nil {
		return nil, nil, err
	}
	return s, s, nil
}

// cluster returns what the orchestrator is told of the others, nil without any.
func (p *parts) cluster(s shared, cfg Config) (*orchestrator.Cluster, error) {
	if s == nil {
		return nil, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("see which machine this is: %w", err)
	}
	self := vnic.Hypervisor{
		Name: cfg.Cluster.Hypervisor, Underlay: cfg.Cluster.Underlay, API: cfg.APIListen, Version: buildinfo.Version(),
		Boot: strings.TrimSpace(string(boot)), Started: time.Now(),
	}
	if self.Underlay.IsValid() {
		mtu, err := p.host.OverlayMTU()
		if err != nil {
			return nil, err
		}
		self.MTU = mtu
	}
	return &orchestrator.Cluster{
		Self: self, Overlay: p.host, ReleaseAfter: cfg.Cluster.ReleaseAfter,
		KeepAlive: func(ctx context.Context, key string, value []byte, held func()) error {
			return s.KeepAlive(ctx, key, value, aliveTTL, held)
		},
	}, nil
}

// newHost returns the host half, which tunnels when there is an underlay.
func newHost(cfg Config) (*hostside.Host, error) {
	return hostside.New(hostside.Config{Log: cfg.Log, Underlay: cfg.Cluster.Underlay})
}
