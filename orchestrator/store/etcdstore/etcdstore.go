// Package etcdstore is a store in etcd, for daemons of several hosts that share
// one. A commit is on the disks of a majority of etcd's members when it returns.
//
// Below its prefix, a store has four kinds of keys: "schema", the version of the
// layout; "data/KEY", the items; "gone/N", put anew by each commit that deletes
// something (see guard.go); and "mark/LEASE/N", by which a commit whose answer is
// lost is found again (see commit.go). Whoever deletes keys by other programs
// than this deletes from "data/" while no daemon runs.
//
// It works with etcd 3.4 and later.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// schema is the version of the layout of the keys.
const schema = 1

// DefaultPrefix is the [Config.Prefix] of who names none.
const DefaultPrefix = "/brfuse/"

const (
	defaultRequestTimeout = 6 * time.Second
	// attempts is how many times a request fits into RequestTimeout when members
	// don't answer: with three members of which one is frozen, two may be asked.
	attempts = 3
	// A connection without a sign of life for their sum is given up. gRPC asks no
	// more often than each 10 s, and etcd resents it below 5 s.
	pingAfter, pingTimeout = 10 * time.Second, 3 * time.Second
)

// Config says how to reach etcd. See [ParseURL].
type Config struct {
	// Endpoints are the HOST:PORT of etcd's members. Required.
	Endpoints []string
	// Prefix is what all keys begin with; "/" is added to its end. Default: [DefaultPrefix].
	Prefix string
	// TLS has etcd reached by TLS. Default: in the clear.
	TLS *TLSFiles
	// User and PasswordFile are for an etcd with authentication. The file is read at
	// each login; white space around the password is ignored. Default: no user.
	User, PasswordFile string
	// DialTimeout is how long [Open] waits for etcd. Default: RequestTimeout.
	DialTimeout time.Duration
	// RequestTimeout is how long a request waits for etcd, with all its attempts,
	// before it is an error. An etcd that loses its leader takes 1 to 2 s to find
	// another. Default: 6 s.
	RequestTimeout time.Duration
	// Log is told when etcd is lost and found. Default: nothing is logged.
	Log *slog.Logger
}

// Store is a store in etcd. Make it with [Open].
type Store struct {
	cfg   Config
	cli   *clientv3.Client
	login *login          // nil: without a user
	life  context.Context // ends with Close; its end cuts off all that is running
	end   context.CancelFunc
	marks marks
	cache cache

	mu      sync.Mutex     // held to end life, and to look at it before running grows
	running sync.WaitGroup // transactions
}

var _ store.Store = (*Store)(nil)

// Open connects to etcd and checks, or makes, the store in it. Errors are
// [store.ErrUnavailable], [store.ErrSchema], [store.ErrDamaged], those of files
// that can't be read, or etcd's own; they name the endpoints and the remedy.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{cfg: cfg}
	if cfg.User != "" {
		if s.login, err = newLogin(cfg); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if s.cli, err = dial(cfg, s.login); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.login.close())
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.cfg.RequestTimeout = cfg.DialTimeout
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.Close()) //nolint:contextcheck // Close has none
	}
	s.cfg.RequestTimeout = cfg.RequestTimeout
	return s, nil
}

// complete fills in the defaults and checks the files.
func (c Config) complete() (Config, error) {
	if len(c.Endpoints) == 0 {
		return c, errors.New("no etcd endpoint; name at least one HOST:PORT")
	}
	for _, e := range c.Endpoints {
		if host, port, err := net.SplitHostPort(e); err != nil || host == "" || port == "" {
			return c, fmt.Errorf("etcd endpoint %q: want HOST:PORT", e)
		}
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if !strings.HasSuffix(c.Prefix, "/") {
		c.Prefix += "/"
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = defaultRequestTimeout
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = c.RequestTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.TLS != nil {
		return c, c.TLS.check()
	}
	return c, nil
}

// dial makes a client, which connects when it is needed.
func dial(cfg Config, login *login) (*clientv3.Client, error) {
	conf := clientv3.Config{
		Endpoints:   cfg.Endpoints,
		DialTimeout: cfg.DialTimeout, DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingTimeout,
		// ask does it. The client would send a token that is refused 100 times over.
		MaxUnaryRetries: 1,
		Logger:          zap.NewNop(),
	}
	if cfg.TLS != nil {
		conf.TLS = cfg.TLS.config(cfg.Endpoints)
	}
	if login != nil {
		conf.DialOptions = append(conf.DialOptions, login.option())
	}
	return clientv3.New(conf)
}

// prepare logs in, makes the schema key of a new store, or checks that of an old
// one, and takes the lease of the marks.
func (s *Store) prepare(ctx context.Context) error {
	if s.login != nil {
		if err := s.ask(ctx, func(ctx context.Context) error { return s.login.renew(ctx, "") }); err != nil {
			return err
		}
	}
	key, want := s.cfg.Prefix+"schema", strconv.Itoa(schema)
	var resp *clientv3.TxnResponse
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = s.cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, want)).Else(clientv3.OpGet(key)).Commit()
		return err
	})
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		got := string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
		switch n, err := strconv.Atoi(got); {
		case err != nil:
			return fmt.Errorf("%s in etcd at %s: %w: it is %q, not a version; restore it from a copy, or name another prefix", key, s.where(), store.ErrDamaged, got)
		case n > schema:
			return fmt.Errorf("%s in etcd at %s: schema %d, this release knows %d: %w; run that release, or name another prefix",
				key, s.where(), n, schema, store.ErrSchema)
		}
	}
	return s.marks.renew(ctx, s, 0)
}

// begin lets a call run that Close waits for. See bind.
func (s *Store) begin(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, release, err := s.bind(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.running.Add(1)
	return ctx, func() {
		release()
		s.running.Done()
	}, nil
}

// bind returns a context that also ends with the store, by [os.ErrClosed].
func (s *Store) bind(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if s.life.Err() != nil {
		return nil, nil, fmt.Errorf("store in etcd at %s: %w", s.where(), os.ErrClosed)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(os.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}, nil
}

// Close implements [store.Store]. It cuts off transactions that are running, and
// waits for them; one that is being committed learns its outcome first. A [Lease]
// is lost by it, and its key goes when its time to live is over.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.life.Err() != nil
	s.end()
	s.mu.Unlock()
	s.running.Wait()
	if was {
		return nil
	}
	s.marks.close(s)
	if err := errors.Join(closeClient(s.cli), s.login.close()); err != nil {
		return fmt.Errorf("close store in etcd at %s: %w", s.where(), err)
	}
	return nil
}

func closeClient(cli *clientv3.Client) error {
	if err := cli.Close(); !errors.Is(err, context.Canceled) { // the end of its own context, which it returns
		return err
	}
	return nil
}

func (s *Store) where() string { return strings.Join(s.cfg.Endpoints, ",") }
