package wire

import (
	"io"
	"sync"
	"syscall"
)

// serial imitates a virtio-serial port with a unix-socket chardev, with all of
// its vices: no side learns that the other one was replaced, what is on its way
// reaches whoever reads next, a second client waits in the backlog and takes
// over, and a guest's read without a host is EOF at once.
type serial struct {
	mu      sync.Mutex
	cond    *sync.Cond
	toGuest []byte
	toHost  []byte
	clients []*serialHost // the first one is served
	agent   *serialGuest
	keep    int // bytes for the guest that survive a close: those QEMU still has
}

func newSerial() *serial {
	s := &serial{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// connect is what a host does.
func (s *serial) connect() *serialHost {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &serialHost{s: s}
	s.clients = append(s.clients, c)
	s.cond.Broadcast()
	return c
}

// open is what an agent does.
func (s *serial) open() (*serialGuest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agent != nil {
		return nil, syscall.EBUSY
	}
	s.agent = &serialGuest{s: s}
	return s.agent, nil
}

type serialHost struct {
	s       *serial
	waiting []byte // written while in the backlog
	closed  bool
}

func (c *serialHost) served() bool { return len(c.s.clients) > 0 && c.s.clients[0] == c }

func (c *serialHost) Read(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for !c.closed && (!c.served() || len(c.s.toHost) == 0) {
		c.s.cond.Wait()
	}
	if c.closed {
		return 0, io.ErrClosedPipe
	}
	n := copy(p, c.s.toHost)
	c.s.toHost = c.s.toHost[n:]
	return n, nil
}

func (c *serialHost) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case c.closed:
		return 0, io.ErrClosedPipe
	case c.served():
		c.s.toGuest = append(c.s.toGuest, p...)
	default:
		c.waiting = append(c.waiting, p...)
	}
	c.s.cond.Broadcast()
	return len(p), nil
}

func (c *serialHost) Close() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	for i, o := range c.s.clients {
		if o == c {
			c.s.clients = append(c.s.clients[:i:i], c.s.clients[i+1:]...)
			break
		}
	}
	if len(c.s.clients) > 0 {
		next := c.s.clients[0]
		c.s.toGuest, next.waiting = append(c.s.toGuest, next.waiting...), nil
	}
	c.s.cond.Broadcast()
	return nil
}

type serialGuest struct {
	s      *serial
	closed bool
}

func (g *serialGuest) Read(p []byte) (int, error) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	for !g.closed && len(g.s.toGuest) == 0 && len(g.s.clients) > 0 {
		g.s.cond.Wait()
	}
	switch {
	case g.closed:
		return 0, io.ErrClosedPipe
	case len(g.s.toGuest) == 0:
		return 0, io.EOF
	}
	n := copy(p, g.s.toGuest)
	g.s.toGuest = g.s.toGuest[n:]
	return n, nil
}

func (g *serialGuest) Write(p []byte) (int, error) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	for !g.closed && len(g.s.clients) == 0 {
		g.s.cond.Wait()
	}
	if g.closed {
		return 0, io.ErrClosedPipe
	}
	g.s.toHost = append(g.s.toHost, p...)
	g.s.cond.Broadcast()
	return len(p), nil
}

// Close is also what the kernel does for an agent that is killed.
func (g *serialGuest) Close() error {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed, g.s.agent = true, nil
	g.s.toGuest = g.s.toGuest[max(0, len(g.s.toGuest)-g.s.keep):]
	g.s.cond.Broadcast()
	return nil
}

// inject puts bytes on the way to one of the sides.
func (s *serial) inject(to *[]byte, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, b...)
	s.cond.Broadcast()
}
