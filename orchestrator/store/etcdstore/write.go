package etcdstore

import (
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// settleDeletes drops the deletions of what is not there when nothing is put, so
// that a transaction which changes nothing makes no revision. It reads what the
// transaction has not.
func (t *tx) settleDeletes() error {
	for _, w := range t.writes {
		if !w.delete {
			return nil
		}
	}
	for k := range t.writes {
		it, err := t.read(k)
		if err != nil {
			return err
		}
		if !it.Exists() {
			delete(t.writes, k)
		}
	}
	var cuts []string
	for _, prefix := range t.cuts {
		key := t.s.dataKey(prefix)
		a, err := t.get(key, clientv3.GetPrefixRangeEnd(key), 1)
		if err != nil {
			return err
		}
		if len(a.kvs) > 0 {
			cuts = append(cuts, prefix)
		} else {
			t.scans = append(t.scans, &scan{prefix: prefix, rev: a.rev})
		}
	}
	t.cuts = cuts
	return nil
}

// ops returns the writes, and those that tell of deletions.
func (t *tx) ops() []clientv3.Op {
	var ops []clientv3.Op
	for _, prefix := range t.cuts {
		ops = append(ops, t.cutOps(prefix)...)
	}
	for k, w := range t.writes {
		if w.delete {
			ops = append(ops, clientv3.OpDelete(t.s.dataKey(k)))
		} else {
			ops = append(ops, clientv3.OpPut(t.s.dataKey(k), string(w.value)))
		}
	}
	for _, key := range t.goneKeys() {
		ops = append(ops, clientv3.OpPut(key, ""))
	}
	return ops
}

// cutOps deletes the keys that begin with prefix, but those that are put: etcd
// takes no two writes of one key in a transaction.
func (t *tx) cutOps(prefix string) []clientv3.Op {
	from := t.s.dataKey(prefix)
	end := clientv3.GetPrefixRangeEnd(from)
	var ops []clientv3.Op
	for _, k := range slices.Sorted(maps.Keys(t.writes)) {
		if !strings.HasPrefix(k, prefix) {
			continue
		}
		if key := t.s.dataKey(k); key > from {
			ops = append(ops, clientv3.OpDelete(from, clientv3.WithRange(key)))
		}
		from = t.s.dataKey(k) + "\x00"
	}
	return append(ops, clientv3.OpDelete(from, clientv3.WithRange(end)))
}
