package etcdstore

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// value returns what the cache has of a request: "-" when nothing, "" for no key.
func value(c *cache, q request) string {
	a, ok := c.get(q)
	switch {
	case !ok:
		return "-"
	case len(a.kvs) == 0:
		return ""
	}
	return string(a.kvs[0].Value)
}

func TestCache(t *testing.T) {
	var c cache
	with := func(v string, rev int64) answer {
		return answer{kvs: []*mvccpb.KeyValue{{Value: []byte(v), ModRevision: rev}}, rev: rev}
	}
	s := &Store{cfg: Config{Prefix: "/"}}
	a, b := request{key: s.dataKey("a/1")}, request{key: s.dataKey("b")}
	under := request{s.dataKey("a/"), s.dataKey("a0"), 1}
	all := request{s.dataKey("a/"), s.dataKey("a0"), 0}
	assert.Equal(t, "-", value(&c, a))
	c.put(a, with("new", 5))
	c.put(a, with("old", 4))
	assert.Equal(t, "new", value(&c, a), "what is later stays")
	c.put(under, with("first", 5))
	c.put(all, with("first", 5))
	assert.Equal(t, "-", value(&c, all), "a range without a limit is not worth it")

	c.committed(&tx{snapshot: snapshot{s: s}, writes: map[string]write{"b": {value: []byte("mine")}, "c": {delete: true}}}, 6)
	assert.Equal(t, "mine", value(&c, b))
	assert.Empty(t, value(&c, request{key: s.dataKey("c")}))
	assert.Equal(t, "first", value(&c, under))
	c.committed(&tx{snapshot: snapshot{s: s}, writes: map[string]write{"a/0": {}}}, 7)
	assert.Equal(t, "-", value(&c, under), "a key was put into the range")
	assert.Equal(t, "new", value(&c, a))

	c.put(under, with("first", 7))
	c.committed(&tx{snapshot: snapshot{s: s}, cuts: []string{"a/1"}}, 8)
	assert.Equal(t, "-", value(&c, a))
	assert.Equal(t, "-", value(&c, under))
	assert.Equal(t, "mine", value(&c, b))
	for i := range 2 * cacheSize {
		c.put(request{key: fmt.Sprint(i)}, answer{rev: 9})
		c.put(b, answer{rev: 9})
	}
	assert.Equal(t, cacheSize, c.recent.Len())
	assert.Len(t, c.known, cacheSize)
	assert.Empty(t, value(&c, b), "what is in use stays")
	assert.Equal(t, "-", value(&c, request{key: "0"}))
	assert.Empty(t, c.ranges)
}
