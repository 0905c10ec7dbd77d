package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	rpcHeaderSize = 10
	// maxMessage bounds a ttrpc message in bytes. A thousand vNICs fit in a List.
	maxMessage = 256 << 10

	rpcRequest  = 1
	rpcResponse = 2
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// guard is the connection under a ttrpc client or server. It knows the calls
// under way, and refuses messages that are too long or belong to none, before
// ttrpc allocates for them or starts a goroutine.
type guard struct {
	net.Conn
	ctx    context.Context // a connection's reads have no other way to learn of the session's end
	server bool            // ttrpc's server is above: requests come in, responses go out
	slots  chan struct{}   // of a server: one token a call under way
	fail   func(error)     // ends the session
	closed func()          // called once by Close

	out   rpcScan
	ahead []byte // bytes of the incoming message that are not yet handed up

	mu   sync.Mutex // guards what is below
	open map[uint32]struct{}
	last uint32 // of a server: the newest request's stream

	once sync.Once
}

func newGuard(ctx context.Context, conn net.Conn, server bool, limit int, fail func(error), closed func()) *guard {
	return &guard{
		Conn: conn, ctx: ctx, server: server, fail: fail, closed: closed,
		slots: make(chan struct{}, limit), open: make(map[uint32]struct{}),
	}
}

// Read hands up one message, once it is whole and checked. With too many calls
// under way it waits, so that the peer is slowed down by the stream's window.
func (g *guard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.ahead) == 0 {
		head := make([]byte, rpcHeaderSize)
		if _, err := io.ReadFull(g.Conn, head); err != nil {
			return 0, io.EOF // ttrpc stops on EOF only
		}
		if err := g.incoming(head); err != nil {
			g.fail(err)
			return 0, io.EOF
		}
		msg := append(make([]byte, 0, rpcHeaderSize+int(be32(head))), head...)[:rpcHeaderSize+int(be32(head))]
		if _, err := io.ReadFull(g.Conn, msg[rpcHeaderSize:]); err != nil {
			return 0, io.EOF
		}
		if err := checkEnvelope(msg[rpcHeaderSize:], g.server); err != nil {
			g.fail(err)
			return 0, io.EOF
		}
		g.ahead = msg
	}
	n := copy(p, g.ahead)
	g.ahead = g.ahead[n:]
	return n, nil
}

func (g *guard) incoming(h []byte) error {
	length, id, typ, flags := be32(h), be32(h[4:]), h[8], h[9]
	if length > maxMessage {
		return fmt.Errorf("message of %d bytes, at most %d are allowed: %w", length, maxMessage, errProtocol)
	}
	if flags != 0 {
		return fmt.Errorf("message with flags %#x: %w", flags, errProtocol)
	}
	if g.server {
		return g.request(id, typ)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.open[id]; typ != rpcResponse || !ok {
		return fmt.Errorf("message of type %d for call %d, which is not under way: %w", typ, id, errProtocol)
	}
	delete(g.open, id)
	return nil
}

func (g *guard) request(id uint32, typ byte) error {
	if typ != rpcRequest || id%2 != 1 {
		return fmt.Errorf("message of type %d with number %d is no call: %w", typ, id, errProtocol)
	}
	select {
	case g.slots <- struct{}{}:
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if id <= g.last {
		return fmt.Errorf("call %d after call %d: %w", id, g.last, errProtocol)
	}
	g.last = id
	g.open[id] = struct{}{}
	return nil
}

// Write notes the calls that begin or end with p.
func (g *guard) Write(p []byte) (int, error) {
	g.out.feed(p, g.outgoing)
	return g.Conn.Write(p)
}

func (g *guard) outgoing(id uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.server {
		g.open[id] = struct{}{}
		return
	}
	if _, ok := g.open[id]; ok {
		delete(g.open, id)
		<-g.slots
	}
}

// Close closes the connection; ttrpc's server does so when it has ended.
func (g *guard) Close() error {
	err := g.Conn.Close()
	g.once.Do(g.closed)
	return err
}

// rpcScan finds the headers in a stream of ttrpc messages of our own.
type rpcScan struct {
	head [rpcHeaderSize]byte
	have int
	left int
}

func (s *rpcScan) feed(p []byte, message func(id uint32)) {
	for len(p) > 0 {
		if s.left > 0 {
			n := min(len(p), s.left)
			s.left, p = s.left-n, p[n:]
			continue
		}
		n := copy(s.head[s.have:], p)
		p, s.have = p[n:], s.have+n
		if s.have == rpcHeaderSize {
			s.have, s.left = 0, int(be32(s.head[:]))
			message(be32(s.head[4:]))
		}
	}
}
