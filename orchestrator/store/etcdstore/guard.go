package etcdstore

import (
	"fmt"
	"hash/fnv"
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
// many, it shows in the keys "gone/N"; see [tx.goneKeys]. Items with a lease go
// without a commit, and are guarded one by one always.
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
	keys := map[string]bool{}
	dirs := dirsOf(prefix)
	keys[t.s.goneKey(below, dirs[len(dirs)-1])] = true
	for _, dir := range dirs[:len(dirs)-1] {
		keys[t.s.goneKey(cutOff, dir)] = true
	}
	cmps := make([]clientv3.Cmp, 0, len(keys))
	for key := range keys {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "<", rev+1))
	}
	return cmps
}

// goneKeys returns the keys that a commit puts which deletes. A directory is what a key
// has up to a "/", of which the third is the last that counts. Each key "DIR/NAME" that
// goes tells all directories that it is in that something below is gone. A prefix that
// is deleted tells those that it is in as well; and what was below it learns that by
// another key, of the prefix's own directory. A scan looks at the first kind of its
// prefix's directory, and at the second of those that this one is in.
//
// The keys are numbered, by a hash: there are goneKeys of them at most, however many
// directories come and go. Two that share one make commits be tried again, no more. The
// root and what is right below it, where much is deleted all the time, have keys of
// their own.
func (t *tx) goneKeys() []string {
	keys := map[string]bool{}
	tell := func(key string) (last string) {
		for _, dir := range dirsOf(key) {
			keys[t.s.goneKey(below, dir)], last = true, dir
		}
		return last
	}
	for _, prefix := range t.cuts {
		keys[t.s.goneKey(cutOff, tell(prefix))] = true
	}
	for k, w := range t.writes {
		if w.delete {
			tell(k)
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// What a key "gone/N" is about.
const (
	below  = "below/" // something below the directory is gone
	cutOff = "cut/"   // a prefix of which it is the directory is gone, with what is below
)

const (
	goneKeys  = 1 << 16
	goneDepth = 3 // of directories
)

// dirsOf returns the directories that a key or a prefix is in, from the root, which is
// "", to one of goneDepth.
func dirsOf(key string) []string {
	dirs := []string{""}
	for i, c := range []byte(key) {
		if c == '/' && len(dirs) <= goneDepth {
			dirs = append(dirs, key[:i+1])
		}
	}
	return dirs
}

func (s *Store) goneKey(kind, dir string) string {
	if strings.Count(dir, "/") < 2 {
		return s.cfg.Prefix + "gone/" + kind + dir
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(kind + dir)) // it never fails
	return fmt.Sprintf("%sgone/%04x", s.cfg.Prefix, h.Sum32()%goneKeys)
}
