package etcdstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
	"github.com/brfuse/brfuse/orchestrator/store/storetest"
)

// prefixes numbers the prefixes of stores that share a cluster.
var prefixes atomic.Int64

// forgetful is a store whose etcd can be compacted.
type forgetful struct {
	*etcdstore.Store
	c *etcdtest.Cluster
}

func (f *forgetful) Forget(t *testing.T) {
	t.Helper()
	_, err := f.c.Compact(t.Context())
	require.NoError(t, err)
}

// open opens a new store in the cluster.
func open(t *testing.T, c *etcdtest.Cluster) *etcdstore.Store {
	t.Helper()
	return openWith(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: fmt.Sprintf("/t%d", prefixes.Add(1))})
}

func openWith(t *testing.T, cfg etcdstore.Config) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// client is one of etcd's own, to look behind the store.
func client(t *testing.T, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, cli.Close()) })
	return cli
}

func put(t *testing.T, s store.Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(key, []byte(value)) })
	require.NoError(t, err)
	return rev
}

func get(t *testing.T, s store.Store, key string) (it store.Item) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(tx store.ReadTx) (err error) {
		it, err = tx.Get(key)
		return err
	}))
	return it
}

func TestStore(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return &forgetful{open(t, c), c}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	cli := client(t, c)
	for prefix, v := range map[string]string{"/newer/": "7", "/broken/": "x"} {
		_, err := cli.Put(t.Context(), prefix+"schema", v)
		require.NoError(t, err)
	}
	at := c.Endpoints()[0]
	cases := []struct {
		name string
		cfg  etcdstore.Config
		is   error
		want string
	}{
		{"no endpoint", etcdstore.Config{}, nil, "open store: no etcd endpoint; name at least one HOST:PORT"},
		{"no port", etcdstore.Config{Endpoints: []string{"localhost"}}, nil, `open store: etcd endpoint "localhost": want HOST:PORT`},
		{
			"newer schema",
			etcdstore.Config{Endpoints: []string{at}, Prefix: "/newer"},
			store.ErrSchema,
			"open store: /newer/schema in etcd at " + at + ": schema 7, this release knows 1: written by a newer release; run that release, or name another prefix",
		},
		{
			"no schema",
			etcdstore.Config{Endpoints: []string{at}, Prefix: "/broken"},
			store.ErrDamaged,
			"open store: /broken/schema in etcd at " + at + `: damaged: it is "x", not a version; restore it from a copy, or name another prefix`,
		},
		{
			"nobody listens",
			etcdstore.Config{Endpoints: []string{"127.0.0.1:1"}, DialTimeout: 300 * time.Millisecond},
			store.ErrUnavailable,
			"connect: connection refused",
		},
		{
			"no password file",
			etcdstore.Config{Endpoints: []string{at}, User: "u", PasswordFile: "/nonexistent"},
			fs.ErrNotExist,
			"open store: read the password of etcd user u: open /nonexistent: no such file or directory",
		},
		{
			"no CA file",
			etcdstore.Config{Endpoints: []string{at}, TLS: &etcdstore.TLSFiles{CA: "/nonexistent"}},
			fs.ErrNotExist,
			"open store: read etcd's CA: open /nonexistent: no such file or directory",
		},
		{
			"a certificate without its key",
			etcdstore.Config{Endpoints: []string{at}, TLS: &etcdstore.TLSFiles{Cert: "x"}},
			nil,
			"open store: read the client certificate for etcd: certificate and key are needed both, or neither",
		},
		{
			"in the clear, by TLS",
			etcdstore.Config{Endpoints: []string{at}, TLS: &etcdstore.TLSFiles{}, DialTimeout: 300 * time.Millisecond},
			store.ErrUnavailable, "authentication handshake failed",
		},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			_, err := etcdstore.Open(t.Context(), tt.cfg)
			require.ErrorContains(t, err, tt.want)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
		})
	}
}

// TestRequests counts what the usual transactions cost: one request for a View of
// one key, and one for a compare and swap of one that is known.
func TestRequests(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	p := newProxy(t, c.Endpoints()[0])
	s := openWith(t, etcdstore.Config{Endpoints: []string{p.addr}})
	rev := put(t, s, "a", "1") // makes a mark
	cases := []struct {
		name     string
		requests int
		fn       func() error
	}{
		{"view", 1, func() error {
			return s.View(t.Context(), func(tx store.ReadTx) error { _, err := tx.Get("a"); return err })
		}},
		{"swap", 1, func() (err error) {
			rev, err = store.CompareAndSwap(t.Context(), s, "a", rev, []byte("2"))
			return err
		}},
		{"put", 1, func() error {
			_, err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("b", nil) })
			return err
		}},
		{"put and blind deletes", 1, func() error {
			_, err := s.Update(t.Context(), func(tx store.Tx) error {
				return errors.Join(tx.Put("b", nil), tx.Delete("c"), tx.DeletePrefix("d/"))
			})
			return err
		}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			before := p.requests()
			require.NoError(t, tt.fn())
			assert.Equal(t, tt.requests, p.requests()-before)
		})
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	s := open(t, c)
	_, err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := range 200 {
			if err := tx.Put(fmt.Sprint(i), nil); err != nil {
				return err
			}
		}
		return nil
	})
	require.EqualError(t, err, "commit to etcd at "+c.Endpoints()[0]+
		": 1 conditions and 201 writes, etcd takes 128 of each; touch fewer keys in one transaction")
	_, err = s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("a", make([]byte, 1700<<10)) })
	require.ErrorContains(t, err, "request is too large; put less into one transaction")
	assert.False(t, get(t, s, "a").Exists())
}

// TestCopy moves the data of a file into etcd, more than a page of it.
func TestCopy(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	from, err := boltstore.Open(filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	defer from.Close()
	const n = 4500
	_, err = from.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			if err := tx.Put(fmt.Sprintf("%d/%05d", i%3, i), fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	s := open(t, c)
	copied, err := store.Copy(t.Context(), from, s)
	require.NoError(t, err)
	assert.Equal(t, n, copied)
	_, err = store.Copy(t.Context(), from, s)
	require.ErrorIs(t, err, store.ErrNotEmpty)
}
