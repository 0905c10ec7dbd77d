package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/yamux"
)

// Streams of a session. Nobody may open others.
const (
	streamBeat      = 1 // opened by the host: heartbeat
	streamToHost    = 2 // opened by the guest: its calls to the daemon
	streamToGuest   = 3 // opened by the host: its calls to the agent
	muxHeaderSize   = 12
	muxWindow       = 256 << 10   // bytes a stream may have on its way, yamux's least
	muxWriteTimeout = time.Minute // the heartbeat ends a session sooner
)

// Frame types and flags of yamux (its spec.md).
const (
	muxData         = 0
	muxWindowUpdate = 1
	muxGoAway       = 3

	muxSYN = 1
	muxACK = 2
	muxFIN = 4
	muxRST = 8
)

var (
	// errPeerClosed is returned when the other side ended the session in order.
	errPeerClosed = errors.New("closed by the other side")
	// errProtocol is returned when the other side sends what no honest peer sends.
	errProtocol = errors.New("protocol violation")
)

func muxConfig() *yamux.Config {
	return &yamux.Config{
		AcceptBacklog:          2,
		KeepAliveInterval:      time.Hour, // keepalive is off: a stranger would answer it, see the package comment
		ConnectionWriteTimeout: muxWriteTimeout,
		MaxStreamWindowSize:    muxWindow,
		LogOutput:              io.Discard,
	}
}

// muxConn is the connection under yamux. It reads through the handshake's
// buffer, refuses frames that no honest peer sends before yamux sees them, and
// writes a frame's header and body at once.
type muxConn struct {
	r    *bufio.Reader
	conn io.ReadWriteCloser
	in   muxCheck
	head []byte // a data frame's header that waits for its body
}

func (c *muxConn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if cerr := c.in.feed(p[:n]); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// Write relies on yamux: it writes a header with one call, and the body of a
// data frame, which is never empty, with the next.
func (c *muxConn) Write(p []byte) (int, error) {
	if c.head == nil && len(p) == muxHeaderSize && p[1] == muxData && muxLength(p) > 0 {
		c.head = append(make([]byte, 0, muxHeaderSize+min(int(muxLength(p)), muxWindow)), p...)
		return len(p), nil
	}
	head := c.head
	c.head = nil
	if head == nil {
		return c.conn.Write(p)
	}
	n, err := c.conn.Write(append(head, p...))
	return max(0, n-len(head)), err
}

func (c *muxConn) Close() error { return c.conn.Close() }

// muxCheck follows the frames in a stream of bytes.
type muxCheck struct {
	ours, theirs map[uint32]bool // streams; theirs are true once opened
	head         [muxHeaderSize]byte
	have         int    // bytes in head
	left         uint32 // bytes of the body still to come
}

func newMuxCheck(host bool) muxCheck {
	byHost := map[uint32]bool{streamBeat: false, streamToGuest: false}
	byGuest := map[uint32]bool{streamToHost: false}
	if host {
		return muxCheck{ours: byHost, theirs: byGuest}
	}
	return muxCheck{ours: byGuest, theirs: byHost}
}

// feed checks the next bytes. Nothing may be fed after an error.
func (c *muxCheck) feed(p []byte) error {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(len(p), int(c.left))
			c.left -= uint32(n) // n is at most c.left
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:], p)
		p, c.have = p[n:], c.have+n
		if c.have < muxHeaderSize {
			return nil
		}
		c.have = 0
		if err := c.header(c.head[:]); err != nil {
			return err
		}
	}
	return nil
}

func (c *muxCheck) header(h []byte) error {
	typ, flags, id, length := h[1], be16(h[2:]), be32(h[4:]), muxLength(h)
	switch {
	case h[0] != 0:
		return fmt.Errorf("mux version %d, the other side may have been restarted: %w", h[0], errProtocol)
	case typ == muxGoAway:
		return errPeerClosed
	case typ != muxData && typ != muxWindowUpdate:
		return fmt.Errorf("mux frame of type %d: %w", typ, errProtocol)
	case typ == muxData && length > muxWindow:
		return fmt.Errorf("mux frame of %d bytes, at most %d are allowed: %w", length, muxWindow, errProtocol)
	}
	if err := c.stream(id, flags); err != nil {
		return err
	}
	if typ == muxData {
		c.left = length
	}
	return nil
}

func (c *muxCheck) stream(id uint32, flags uint16) error {
	_, ours := c.ours[id]
	open, theirs := c.theirs[id]
	switch {
	case flags&(muxFIN|muxRST) != 0:
		return errPeerClosed
	case flags&muxSYN != 0 && (!theirs || open):
		return fmt.Errorf("mux stream %d opened: %w", id, errProtocol)
	case flags&muxSYN != 0:
		c.theirs[id] = true
	case !ours && !open:
		return fmt.Errorf("mux frame for stream %d, which is not open: %w", id, errProtocol)
	}
	return nil
}

func muxLength(h []byte) uint32 { return be32(h[8:]) }
