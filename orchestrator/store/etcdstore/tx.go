package etcdstore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// tx is a transaction: what it has read, and what it will write.
type tx struct {
	snapshot
	seen   map[string]store.Item // what Get and Scan have read; with revision 0: absent
	single map[string]int64      // the revisions of the keys that Get has read
	scans  []*scan
	writes map[string]write
	cuts   []string // prefixes that are deleted; writes were made after that
	next   seeds    // when it has to be run again
}

type write struct {
	value  []byte
	delete bool
}

// scan is what a Scan has read: the items from one that begins with prefix on, up
// to last, or all of them when last is "".
type scan struct {
	prefix, last string
	items        []scanned
	rev          int64 // what it has read is of this revision, or a later one
}

type scanned struct {
	key    string
	rev    int64
	leased bool // may go without a commit
}

// newTx returns a transaction that reads at the revision of the seeds, if there are any.
func (s *Store) newTx(ctx context.Context, from seeds) *tx {
	return &tx{
		snapshot: snapshot{s: s, ctx: ctx, rev: from.rev, seeds: from.known, asked: map[request]bool{}},
		seen:     map[string]store.Item{}, single: map[string]int64{}, writes: map[string]write{},
	}
}

// run runs a transaction's function. A request that failed is an error even when
// the function ignores it.
func (t *tx) run(fn func() error) error {
	err := fn()
	if t.err != nil && !errors.Is(err, t.err) {
		return t.err
	}
	return err
}

// ReadTx returns the transaction without its writing methods.
func (t *tx) ReadTx() store.ReadTx { return struct{ store.ReadTx }{t} }

func (t *tx) Rev() int64 {
	t.fix()
	return t.rev
}

func (t *tx) Get(key string) (store.Item, error) {
	if w, ok := t.writes[key]; ok {
		return t.own(key, w), nil
	}
	if t.cut(key) {
		return store.Item{Key: key}, nil
	}
	return t.read(key)
}

// read returns what the store has.
func (t *tx) read(key string) (store.Item, error) {
	if it, ok := t.seen[key]; ok {
		return it, nil
	}
	a, err := t.get(t.s.dataKey(key), "", 0)
	if err != nil {
		return store.Item{}, err
	}
	it := store.Item{Key: key}
	if len(a.kvs) > 0 {
		it = t.s.item(a.kvs[0])
	}
	t.seen[key], t.single[key] = it, it.Rev
	return it, nil
}

// Unused implements the method of [store.Unused]: a transaction that trusts takes a key
// of which nothing is known for unused.
func (t *tx) Unused(key string) (bool, error) {
	_, own := t.writes[key]
	_, seen := t.seen[key]
	if t.trusts && t.err == nil && !own && !seen && !t.cut(key) {
		if q := (request{key: t.s.dataKey(key)}); !t.s.cache.has(q) {
			t.guess, t.asked[q] = true, true
			t.seen[key], t.single[key] = store.Item{Key: key}, 0
			return true, nil
		}
	}
	it, err := t.Get(key)
	return !it.Exists(), err
}

// own returns an item that the transaction itself has written.
func (t *tx) own(key string, w write) store.Item {
	if w.delete {
		return store.Item{Key: key}
	}
	return store.Item{Key: key, Value: w.value, Rev: t.rev + 1}
}

// cut reports whether all keys that begin with prefix are deleted by a DeletePrefix.
func (t *tx) cut(prefix string) bool {
	return slices.ContainsFunc(t.cuts, func(c string) bool { return strings.HasPrefix(prefix, c) })
}

func (t *tx) Scan(prefix string, limit int) ([]store.Item, error) {
	var items []store.Item
	for k, w := range t.writes {
		if strings.HasPrefix(k, prefix) && !w.delete {
			items = append(items, t.own(k, w))
		}
	}
	sc := &scan{prefix: prefix}
	if !t.cut(prefix) {
		base, err := t.base(sc, limit)
		if err != nil {
			return nil, err
		}
		t.scans = append(t.scans, sc)
		items = append(items, base...)
	}
	slices.SortFunc(items, func(a, b store.Item) int { return strings.Compare(a.Key, b.Key) })
	if limit > 0 && len(items) >= limit {
		items = items[:limit]
		sc.last = items[limit-1].Key // what comes after doesn't matter, and is to be read again if it does
		maps.DeleteFunc(t.seen, func(k string, _ store.Item) bool {
			_, alone := t.single[k]
			return k > sc.last && strings.HasPrefix(k, prefix) && !alone
		})
	}
	return items, nil
}

// base returns the first limit items of the store that the transaction has neither
// put nor deleted, and notes in sc all that it has read.
func (t *tx) base(sc *scan, limit int) ([]store.Item, error) {
	key := t.s.dataKey(sc.prefix)
	end := clientv3.GetPrefixRangeEnd(key)
	page := pageSize
	if limit > 0 {
		page = min(pageSize, limit+len(t.writes))
	}
	var items []store.Item
	for more := true; more && (limit == 0 || len(items) < limit); {
		a, err := t.get(key, end, page)
		if err != nil {
			return nil, err
		}
		if sc.rev == 0 || a.rev < sc.rev {
			sc.rev = a.rev
		}
		for _, kv := range a.kvs {
			it := t.s.item(kv)
			key = string(kv.Key) + "\x00"
			if rev, alone := t.single[it.Key]; alone && rev != it.Rev { // one of them is not so any more
				t.err = errAgain
				return nil, t.err
			}
			t.seen[it.Key] = it
			sc.items = append(sc.items, scanned{it.Key, it.Rev, kv.Lease != 0})
			if _, mine := t.writes[it.Key]; !mine && !t.cut(it.Key) {
				items = append(items, it)
			}
		}
		more = a.more
	}
	return items, nil
}

func (t *tx) Put(key string, value []byte) error {
	t.writes[key] = write{value: append([]byte{}, value...)}
	return nil
}

func (t *tx) Delete(key string) error {
	if t.cut(key) {
		delete(t.writes, key)
		return nil
	}
	t.writes[key] = write{delete: true}
	return nil
}

func (t *tx) DeletePrefix(prefix string) error {
	under := func(k string) bool { return strings.HasPrefix(k, prefix) }
	for k := range t.writes {
		if under(k) {
			delete(t.writes, k)
		}
	}
	if !t.cut(prefix) {
		t.cuts = append(slices.DeleteFunc(t.cuts, under), prefix)
	}
	return nil
}
