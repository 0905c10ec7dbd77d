package etcdstore

import (
	"container/list"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// cacheSize is how many requests a Store remembers the answers to.
	cacheSize = 2048
	// cacheRange is the largest limit of a range that is remembered.
	cacheRange = 16
)

// request asks for a key, or for a range up to end when it isn't empty.
type request struct {
	key, end string
	limit    int // 0: all
}

// small says that the answer is worth remembering.
func (q request) small() bool { return q.end == "" || 0 < q.limit && q.limit <= cacheRange }

// covers reports whether the request is for a range that key is in.
func (q request) covers(key string) bool { return q.end != "" && q.key <= key && key < q.end }

func (q request) op() clientv3.Op { return clientv3.OpGet(q.key, q.options()...) }

func (q request) options() []clientv3.OpOption {
	opts := []clientv3.OpOption{clientv3.WithLimit(int64(q.limit))}
	if q.end != "" {
		opts = append(opts, clientv3.WithRange(q.end))
	}
	return opts
}

// answer is what etcd had at a revision. It is not modified.
type answer struct {
	kvs  []*mvccpb.KeyValue
	more bool
	rev  int64
}

// cache remembers what etcd had when this Store last saw it, its own writes among
// that, for the first run of an update's function; see [Store.Update]. It need not be
// so any more: nobody is told of what others write. The zero value is empty.
type cache struct {
	mu     sync.Mutex
	known  map[request]*list.Element // guarded by mu; of *remembered
	ranges map[request]*list.Element // guarded by mu; those of known that are for ranges
	recent *list.List                // guarded by mu; the one that was used last is first
}

type remembered struct {
	request
	answer
}

// get returns the last answer to a request.
func (c *cache) get(q request) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[q]
	if e == nil {
		return answer{}, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*remembered).answer, true
}

// has reports whether there is an answer to a request.
func (c *cache) has(q request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[q] != nil
}

// put remembers an answer, unless it has a later one.
func (c *cache) put(q request, a answer) {
	if !q.small() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(q, a)
}

func (c *cache) putLocked(q request, a answer) {
	if e := c.known[q]; e != nil {
		if r := e.Value.(*remembered); r.rev <= a.rev {
			r.answer = a
		}
		c.recent.MoveToFront(e)
		return
	}
	if c.known == nil {
		c.known, c.ranges, c.recent = map[request]*list.Element{}, map[request]*list.Element{}, list.New()
	}
	c.known[q] = c.recent.PushFront(&remembered{q, a})
	if q.end != "" {
		c.ranges[q] = c.known[q]
	}
	if c.recent.Len() > cacheSize {
		c.dropLocked(c.recent.Back())
	}
}

func (c *cache) dropLocked(e *list.Element) {
	q := e.Value.(*remembered).request
	delete(c.known, q)
	delete(c.ranges, q)
	c.recent.Remove(e)
}

// committed takes in what a transaction wrote.
func (c *cache) committed(t *tx, rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, prefix := range t.cuts {
		c.cutLocked(t.s.dataKey(prefix))
	}
	for k, w := range t.writes {
		key := t.s.dataKey(k)
		a := answer{rev: rev}
		if !w.delete {
			a.kvs = []*mvccpb.KeyValue{{Key: []byte(key), Value: w.value, ModRevision: rev}}
		}
		c.putLocked(request{key: key}, a)
		for q, e := range c.ranges {
			if q.covers(key) {
				c.dropLocked(e)
			}
		}
	}
}

// cutLocked forgets what begins with a prefix.
func (c *cache) cutLocked(prefix string) {
	for q, e := range c.known {
		if strings.HasPrefix(q.key, prefix) || q.covers(prefix) {
			c.dropLocked(e)
		}
	}
}
