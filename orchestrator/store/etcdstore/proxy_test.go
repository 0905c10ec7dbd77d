package etcdstore_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// proxy stands between a store and etcd. It counts requests, and can hold up what
// goes either way, and cut connections.
type proxy struct {
	addr, to string
	l        net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex
	moved *sync.Cond            // with mu: held and conns changed
	held  map[direction]bool    // guarded by mu
	conns map[net.Conn]net.Conn // guarded by mu; of a client, to etcd
	heads int                   // guarded by mu; how many requests for keys were begun
}

type direction bool

const (
	requests direction = false
	replies  direction = true
)

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String(), to: to, l: l, held: map[direction]bool{}, conns: map[net.Conn]net.Conn{}}
	p.moved = sync.NewCond(&p.mu)
	p.all.Go(p.accept)
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.to) //nolint:noctx // local
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c] = up
		p.mu.Unlock()
		p.all.Go(func() { p.copy(requests, c, io.MultiWriter(newCounter(p), up), c) })
		p.all.Go(func() { p.copy(replies, c, c, up) })
	}
}

// copy passes on what comes, when it isn't held up, until the connection is cut.
func (p *proxy) copy(d direction, id net.Conn, to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.held[d] && p.conns[id] != nil {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			p.drop(id)
			return
		}
	}
}

// counter counts the requests for keys in what a client sends.
type counter struct {
	p    *proxy
	skip int // of the preface
	buf  bytes.Buffer
	f    *http2.Framer
}

func newCounter(p *proxy) *counter {
	c := &counter{p: p, skip: len(http2.ClientPreface)}
	c.f = http2.NewFramer(io.Discard, &c.buf)
	c.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c
}

func (c *counter) Write(b []byte) (int, error) {
	n := min(c.skip, len(b))
	c.skip -= n
	c.buf.Write(b[n:])
	for c.whole() {
		fr, err := c.f.ReadFrame()
		if err != nil {
			return 0, err
		}
		if h, ok := fr.(*http2.MetaHeadersFrame); ok && strings.HasPrefix(h.PseudoValue("path"), "/etcdserverpb.KV/") {
			c.p.mu.Lock()
			c.p.heads++
			c.p.mu.Unlock()
		}
	}
	return len(b), nil
}

// whole reports whether the buffer has a whole frame (RFC 9113, section 4.1).
func (c *counter) whole() bool {
	const head = 9
	b := c.buf.Bytes()
	return len(b) >= head && len(b) >= head+int(b[0])<<16+int(b[1])<<8+int(b[2])
}

func (p *proxy) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heads
}

// hold holds up what goes in a direction, or lets it go on.
func (p *proxy) hold(d direction, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[d] = on
	p.moved.Broadcast()
}

func (p *proxy) drop(id net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(id)
}

func (p *proxy) dropLocked(id net.Conn) {
	if up := p.conns[id]; up != nil {
		id.Close()
		up.Close()
		delete(p.conns, id)
		p.moved.Broadcast()
	}
}

// cut ends all connections; what is held up is lost. New ones work.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.conns {
		p.dropLocked(id)
	}
}
