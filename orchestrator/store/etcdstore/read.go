package etcdstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// pageSize is how many items one request for a range returns at most.
const pageSize = 2000

// errAgain says that a transaction is to be run again: what it has read was
// changed before it could commit, or forgotten while it was reading.
var errAgain = errors.New("what was read is not valid any more")

// View implements [store.Store]. It needs one request for each Get and page of a
// Scan, and runs fn again when etcd is compacted right under it.
func (s *Store) View(ctx context.Context, fn func(store.ReadTx) error) error {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	for {
		t := s.newTx(ctx, seeds{})
		if err := t.run(func() error { return fn(t.ReadTx()) }); !errors.Is(err, errAgain) {
			return err
		}
	}
}

// snapshot reads from one revision: that of the first request, which asks a
// majority, or that of seeds. Later ones ask any member that has the revision.
//
// While it trusts, it reads from what the store remembers too, which may be of other
// revisions, and may not be so any more.
type snapshot struct {
	s   *Store
	ctx context.Context // the transaction's, which the seam gives to none of its methods
	rev int64           // 0: nothing was read yet
	err error           // the first

	trusts bool // may read what is remembered
	guess  bool // has done so
	seeds  map[request]answer
	asked  map[request]bool // what was read, and is small
}

// get requests a key, or the range up to end when it isn't empty.
func (r *snapshot) get(key, end string, limit int) (answer, error) {
	if r.err != nil {
		return answer{}, r.err
	}
	q := request{key, end, limit}
	if q.small() {
		r.asked[q] = true
	}
	if a, ok := r.seeds[q]; ok {
		return a, nil
	}
	if r.trusts {
		if a, ok := r.s.cache.get(q); ok {
			r.guess = true
			return a, nil
		}
	}
	a, err := r.request(q)
	if err == nil {
		r.s.cache.put(q, a)
	}
	return a, err
}

// request asks etcd.
func (r *snapshot) request(q request) (answer, error) {
	opts := q.options()
	if r.rev != 0 {
		opts = append(opts, clientv3.WithRev(r.rev))
	}
	var resp *clientv3.GetResponse
	err := r.s.ask(r.ctx, func(ctx context.Context) (err error) {
		if r.rev != 0 {
			resp, err = r.s.cli.Get(ctx, q.key, append(slices.Clip(opts), clientv3.WithSerializable())...)
			if !errors.Is(err, rpctypes.ErrFutureRev) { // which a member that is behind says
				return err
			}
		}
		resp, err = r.s.cli.Get(ctx, q.key, opts...)
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		r.err = errAgain
	case err != nil:
		r.err = err
	case r.rev == 0:
		r.rev = resp.Header.Revision
	}
	if r.err != nil {
		return answer{}, r.err
	}
	return answer{resp.Kvs, resp.More, r.rev}, nil
}

// fix makes sure that the snapshot has a revision. One that trusts has none.
func (r *snapshot) fix() {
	if r.trusts && r.err == nil {
		r.guess, r.err = true, errAgain
	}
	if r.err != nil {
		return
	}
	if r.rev == 0 {
		_, _ = r.request(request{key: r.s.cfg.Prefix + "schema"}) // the error stays in r
	}
}

func (s *Store) dataKey(key string) string { return s.cfg.Prefix + "data/" + key }

// item returns what etcd has as an item. Others may be given the same value: who appends
// to it gets a copy.
func (s *Store) item(kv *mvccpb.KeyValue) store.Item {
	return store.Item{Key: strings.TrimPrefix(string(kv.Key), s.dataKey("")), Value: slices.Clip(kv.Value), Rev: kv.ModRevision}
}
