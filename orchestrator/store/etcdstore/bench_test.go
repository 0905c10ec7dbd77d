package etcdstore_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// BenchmarkSwap compares a compare and swap, and a put, with the least that etcd's
// client needs for the same.
func BenchmarkSwap(b *testing.B) {
	c := etcdtest.Start(b, etcdtest.Options{})
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	require.NoError(b, err)
	defer cli.Close()
	s, err := etcdstore.Open(b.Context(), etcdstore.Config{Endpoints: c.Endpoints()})
	require.NoError(b, err)
	defer s.Close()
	value := make([]byte, 700)
	cases := []struct {
		name string
		fn   func(ctx context.Context) error
	}{
		{"swap/bare", func(ctx context.Context) error {
			resp, err := cli.Get(ctx, "a")
			if err != nil {
				return err
			}
			var rev int64
			if len(resp.Kvs) > 0 {
				rev = resp.Kvs[0].ModRevision
			}
			_, err = cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("a"), "=", rev)).Then(clientv3.OpPut("a", string(value))).Commit()
			return err
		}},
		{"swap/store", func(ctx context.Context) error {
			_, err := s.Update(ctx, func(tx store.Tx) error {
				if _, err := tx.Get("a"); err != nil {
					return err
				}
				return tx.Put("a", value)
			})
			return err
		}},
		{"put/bare", func(ctx context.Context) error { _, err := cli.Put(ctx, "b", string(value)); return err }},
		{"put/store", func(ctx context.Context) error {
			_, err := s.Update(ctx, func(tx store.Tx) error { return tx.Put("b", value) })
			return err
		}},
	}
	for _, bb := range cases {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, bb.fn(b.Context()))
			}
		})
	}
}
