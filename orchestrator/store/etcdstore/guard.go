package etcdstore

import (
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// itemwise is how many items of a scan are guarded one by one. etcd takes 128
// conditions.
const itemwise = 32

// guards returns the conditions under which the transaction's reads are as valid
// at its commit as they were when they were made.
//
// A key that was read alone has the same revision, 0 when it is absent. In a range
// that was scanned, no key has a revision after the scan's, so that none was put;
// that none was deleted shows in the revisions of its items, when they are few. For
// many, it shows in the keys "gone/DIR": each commit that deletes "DIR/NAME" puts
// "gone/DIR/", and one that deletes a prefix puts that of the prefix's last "/". A
// deletion below the scanned prefix P thus puts a key that begins with "gone/P", or
// that of a directory which P is in. Items with a lease go without a commit, and
// are guarded one by one always.
func (t *tx) guards() []clientv3.Cmp {
	single := maps.Clone(t.single)
	var cmps []clientv3.Cmp
	for _, sc := range t.scans {
		from := t.s.dataKey(sc.prefix)
		end := clientv3.GetPrefixRangeEnd(from)
		if sc.last != "" {
			end = t.s.dataKey(sc.last) + "\x00"
			sc.items = slices.DeleteFunc(sc.items, func(it scanned) bool { return it.key > sc.last })
		}
		cmps = append(cmps, unchanged(from, end, sc.rev))
		few := len(sc.items) <= itemwise
		for _, it := range sc.items {
			if few || it.leased {
				single[it.key] = it.rev
			}
		}
		if !few {
			cmps = append(cmps, t.noneGone(sc.prefix, sc.rev)...)
		}
	}
	for k, rev := range single {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(t.s.dataKey(k)), "=", rev))
	}
	return cmps
}

// unchanged is the condition that no key from one on, before end, was put after a
// revision.
func unchanged(from, end string, rev int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(from).WithRange(end), "<", rev+1)
}

// noneGone are the conditions that none below a prefix was deleted after a revision.
func (t *tx) noneGone(prefix string, rev int64) []clientv3.Cmp {
	from := t.s.goneKey(prefix)
	cmps := []clientv3.Cmp{unchanged(from, clientv3.GetPrefixRangeEnd(from), rev)}
	for dir := dirOf(prefix); ; dir = dirOf(strings.TrimSuffix(dir, "/")) {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(t.s.goneKey(dir)), "<", rev+1))
		if dir == "" {
			return cmps
		}
	}
}

// dirOf returns the key up to its last "/".
func dirOf(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }

func (s *Store) goneKey(dir string) string { return s.cfg.Prefix + "gone/" + dir }
