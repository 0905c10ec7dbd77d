// Package qmptest has peers for tests of QMP clients: a server that speaks the
// protocol on a unix socket or a pipe, a machine behind it that has PCI slots
// and network backends as QEMU has them, and a launcher of real QEMUs.
package qmptest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Greeting is QEMU 7.2's.
const Greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

// Request is a command as it came over the wire.
type Request struct {
	Execute string          `json:"execute"`
	Args    json.RawMessage `json:"arguments"`
	ID      json.RawMessage `json:"id"`
}

// Refusal is an error answer.
type Refusal struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

// Handler answers one request. It runs in the client's order, one at a time.
type Handler func(c *Client, r Request)

// Client is the server's end of one connection. Its methods may be called from
// any goroutine.
type Client struct {
	nc   net.Conn
	mu   sync.Mutex // serialises writes
	fdMu sync.Mutex // guards files
	fds  []int      // received, not yet taken
}

// Write sends text as it is, such as two messages in one segment.
func (c *Client) Write(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.nc.Write([]byte(text)) // the client may have left
}

// Return answers a request.
func (c *Client) Return(r Request, value any) { c.answer(r, "return", value) }

// Refuse answers a request with an error.
func (c *Client) Refuse(r Request, class, format string, a ...any) {
	c.answer(r, "error", Refusal{Class: class, Desc: fmt.Sprintf(format, a...)})
}

func (c *Client) answer(r Request, key string, value any) {
	m := map[string]any{key: value}
	if r.ID != nil {
		m["id"] = r.ID
	}
	c.Write(line(m))
}

// Event sends an event.
func (c *Client) Event(name string, data map[string]any) {
	c.Write(EventLine(name, data))
}

// EventLine is the line of an event.
func EventLine(name string, data map[string]any) string {
	return line(map[string]any{
		"event": name, "data": data,
		"timestamp": map[string]int{"seconds": 1795524627, "microseconds": 645597},
	})
}

func line(m map[string]any) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a fault of the test itself
	}
	return string(b) + "\r\n"
}

// TakeFile returns the descriptor that was received first, or -1. It is the
// caller's to close.
func (c *Client) TakeFile() int {
	c.fdMu.Lock()
	defer c.fdMu.Unlock()
	if len(c.fds) == 0 {
		return -1
	}
	fd := c.fds[0]
	c.fds = c.fds[1:]
	return fd
}

// Close ends the connection, as a QEMU does that dies.
func (c *Client) Close() { _ = c.nc.Close() }

// Read implements [io.Reader] and keeps the descriptors that come along.
func (c *Client) Read(b []byte) (int, error) {
	uc, ok := c.nc.(*net.UnixConn)
	if !ok {
		return c.nc.Read(b)
	}
	oob := make([]byte, unix.CmsgSpace(4*16))
	n, oobn, _, _, err := uc.ReadMsgUnix(b, oob)
	messages, _ := unix.ParseSocketControlMessage(oob[:max(oobn, 0)])
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		c.fdMu.Lock()
		c.fds = append(c.fds, fds...)
		c.fdMu.Unlock()
	}
	return n, err
}

// Serve speaks QMP on nc until the client leaves: greeting, negotiation, then h.
func Serve(nc net.Conn, h Handler) {
	c := &Client{nc: nc}
	defer c.Close()
	c.Write(Greeting + "\r\n")
	dec := json.NewDecoder(c)
	for {
		var r Request
		if dec.Decode(&r) != nil {
			return
		}
		h(c, r)
	}
}

// Server is a QMP server on a unix socket. Like QEMU it serves one client at a
// time; others wait in the backlog for their greeting.
type Server struct {
	// Path is the socket's.
	Path string

	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex // guards what follows
	current  net.Conn
	closed   bool
}

// NewServer starts a server, which ends with the test.
func NewServer(tb testing.TB, h Handler) *Server {
	tb.Helper()
	s := &Server{Path: SocketPath(tb)}
	var err error
	s.listener, err = new(net.ListenConfig).Listen(tb.Context(), "unix", s.Path)
	require.NoError(tb, err)
	s.wg.Go(func() { s.serve(h) })
	tb.Cleanup(s.Close)
	return s
}

func (s *Server) serve(h Handler) {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.current = nc
		closed := s.closed
		s.mu.Unlock()
		if closed {
			_ = nc.Close()
			return
		}
		Serve(nc, h)
	}
}

// Close ends the server and its connection.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	_ = s.listener.Close()
	if s.current != nil {
		_ = s.current.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// SocketPath returns a path for a socket, short enough for one (the test's own
// folder may not be).
func SocketPath(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "qmp") //nolint:usetesting // its names can be too long
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}
