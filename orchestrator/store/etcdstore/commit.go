package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// maxOps is how many conditions, and how many operations, etcd takes in a
// transaction by default (--max-txn-ops).
const maxOps = 128

// fence is the value of a mark that lets no commit pass any more.
const fence = "-"

// Update implements [store.Store]. fn is first run on what the Store remembers of the
// keys that it reads, and the commit has etcd check that it is still so: an fn that gets
// and puts keys which this Store read or wrote a while ago costs one request. Each
// other Get or Scan costs one more, but see [store.Unused].
//
// When it is not so any more, or fn fails, or writes nothing, fn is run again on what one
// request then reads at once. When others go on to change that, it is so again, with
// growing pauses, until ctx ends. Errors are those of fn, [store.ErrUnavailable],
// [store.ErrUnclear], or what etcd refuses.
//
// A commit that has been sent is not broken off when ctx ends: Update then takes
// up to RequestTimeout more to learn the outcome.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	t := s.newTx(ctx, seeds{})
	t.trusts = true
	var pause backoff
	for {
		rev, err := s.try(ctx, t, fn)
		if !errors.Is(err, errAgain) {
			return rev, err
		}
		if !t.guess {
			if err := pause.wait(ctx); err != nil {
				return 0, fmt.Errorf("update store in etcd at %s: others change what it reads again and again: %w", s.where(), err)
			}
		}
		t = s.newTx(ctx, t.next)
	}
}

// try runs a transaction's function and commits. With errAgain, the next transaction is
// to have the seeds that are in this one.
func (s *Store) try(ctx context.Context, t *tx, fn func(store.Tx) error) (int64, error) {
	err := t.run(func() error { return fn(t) })
	switch {
	case err != nil && t.guess && t.err == nil: // perhaps for what is not so
		return 0, s.refresh(ctx, t)
	case err != nil:
		return 0, err
	}
	rev, err := s.commit(ctx, t)
	if err == nil {
		s.cache.committed(t, rev)
	}
	return rev, err
}

// seeds are what a transaction read that has to be run again, read at one revision.
type seeds struct {
	known map[request]answer
	rev   int64
}

// refresh reads anew what a transaction has read, and returns errAgain.
func (s *Store) refresh(ctx context.Context, t *tx) error {
	if len(t.asked) < 2 || len(t.asked) > maxOps { // few are read as quickly by the transaction
		return errAgain
	}
	asked := slices.Collect(maps.Keys(t.asked))
	ops := make([]clientv3.Op, len(asked))
	for i, q := range asked {
		ops[i] = q.op()
	}
	var resp *clientv3.TxnResponse
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = s.cli.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if err != nil {
		return err
	}
	t.next = seeds{map[request]answer{}, resp.Header.Revision}
	for i, q := range asked {
		got := resp.Responses[i].GetResponseRange()
		a := answer{got.Kvs, got.More, t.next.rev}
		t.next.known[q] = a
		s.cache.put(q, a)
	}
	return errAgain
}

// commit writes what the transaction has, once, if what it has read is still so.
//
// Beside its other conditions and writes, each commit finds a mark of its own as
// the last commit with this mark left it, and puts its own name there. So it can't
// be carried out twice, and when its answer is lost, the mark tells.
func (s *Store) commit(ctx context.Context, t *tx) (int64, error) {
	if err := t.settleDeletes(); err != nil {
		return 0, err
	}
	if len(t.writes) == 0 && len(t.cuts) == 0 {
		if t.guess {
			return 0, s.refresh(ctx, t)
		}
		t.fix()
		return t.rev, t.err
	}
	m := s.marks.take(s)
	defer s.marks.give(m)
	name := m.name()
	cmps, ops := append(t.guards(), m.unchanged()), append(t.ops(), m.put(name))
	if n := max(len(cmps), len(ops)); n > maxOps {
		return 0, fmt.Errorf("commit to etcd at %s: %d conditions and %d writes, etcd takes %d of each; touch fewer keys in one transaction",
			s.where(), len(cmps), len(ops), maxOps)
	}
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	var resp *clientv3.TxnResponse
	err := s.once(ctx, func(ctx context.Context) (err error) {
		resp, err = s.cli.Txn(ctx).If(cmps...).Then(ops...).Else(m.get()).Commit()
		return err
	})
	switch {
	case err == nil && resp.Succeeded:
		m.rev = resp.Header.Revision
		return m.rev, nil
	case err == nil:
		m.see(resp)
		return 0, s.refresh(ctx, t)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		if err := s.marks.renew(ctx, s, m.lease); err != nil {
			return 0, err
		}
		return 0, errAgain
	case silent(err):
		return s.settle(ctx, m, name, err)
	}
	return 0, s.explain(ctx, err)
}

// settle learns the outcome of a commit whose answer is lost: it puts a fence into
// the mark if the mark is as it was before the commit. When that succeeds, the
// commit was not made and can't be made any more, even if it is still under way.
func (s *Store) settle(ctx context.Context, m *mark, name string, lost error) (int64, error) {
	var resp *clientv3.TxnResponse
	err := s.ask(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		resp, err = s.cli.Txn(ctx).If(m.unchanged()).Then(m.put(fence)).Else(m.get()).Commit()
		return err
	})
	if err != nil {
		m.broken = true
		return 0, fmt.Errorf("commit to etcd at %s: no answer (%w), and none about its outcome: %w: %w", s.where(), lost, store.ErrUnclear, err)
	}
	has := fence
	if resp.Succeeded {
		m.rev = resp.Header.Revision
	} else {
		has = m.see(resp)
	}
	switch {
	case has == name:
		return m.rev, nil
	case has != fence:
		m.broken = true
		return 0, fmt.Errorf("commit to etcd at %s: no answer (%w), and its mark is gone, as this program stood still for long: %w",
			s.where(), lost, store.ErrUnclear)
	case ctx.Err() != nil:
		return 0, s.explain(ctx, lost)
	}
	return 0, errAgain
}

// mark is a key that one commit at a time uses.
type mark struct {
	key    string
	lease  clientv3.LeaseID
	rev    int64 // of the key; 0: there is none
	commit uint64
	broken bool // rev isn't known
}

// name returns a name that no commit with this mark has had.
func (m *mark) name() string {
	m.commit++
	return strconv.FormatUint(m.commit, 10)
}

func (m *mark) unchanged() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(m.key), "=", m.rev)
}

func (m *mark) put(value string) clientv3.Op {
	return clientv3.OpPut(m.key, value, clientv3.WithLease(m.lease))
}

func (m *mark) get() clientv3.Op { return clientv3.OpGet(m.key) }

// see notes the mark's revision as a refused transaction returns it by get, and
// returns its value.
func (m *mark) see(resp *clientv3.TxnResponse) string {
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		m.rev = 0
		return ""
	}
	m.rev = kvs[0].ModRevision
	return string(kvs[0].Value)
}
