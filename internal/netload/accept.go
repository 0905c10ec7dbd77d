package netload

import (
	"bytes"
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// inlineAnswer is the most that is answered without a goroutine: what every
// send buffer takes at once.
const inlineAnswer = 16 << 10

// accept takes connections. A tcp_crr is answered right here, if it can be
// without waiting: its cost is what is measured.
func (s *Server) accept(ctx context.Context) {
	b := make([]byte, inlineAnswer)
	for ctx.Err() == nil && !s.socks.isDown() {
		// Not unix.Accept4, which allocates the peer's address.
		fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(s.tcp), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
		switch errno {
		case 0:
			s.welcome(ctx, int(fd), b)
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			s.log.Warn("accept: resting", "err", errno)
			rest(ctx)
		default:
			if !s.socks.isDown() {
				s.log.Error("accept: the server is closing", "err", errno)
				s.shutdown()
			}
		}
	}
}

func rest(ctx context.Context) {
	t := time.NewTimer(acceptRest)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// welcome looks what has come already on fd, which doesn't wait, and hands over
// what needs a wait.
func (s *Server) welcome(ctx context.Context, fd int, b []byte) {
	n := readNow(fd, b[:headerLen])
	if n == headerLen {
		h, err := parseHeader(b)
		if err != nil {
			_ = unix.Close(fd)
			return
		}
		if h.role == roleCRR {
			var done bool
			if n, done = s.answerNow(fd, h, b); done {
				_ = unix.Close(fd)
				return
			}
		}
	}
	s.entertain(ctx, fd, bytes.Clone(b[:n]))
}

// readNow reads what is there of a socket that doesn't wait. Errors come again
// to who waits for more.
func readNow(fd int, b []byte) int {
	n, err := unix.Read(fd, b)
	if err != nil {
		return 0
	}
	return n
}

// answerNow answers a tcp_crr, if all of it is there, or a run is not. Else it
// returns how much of it is in b. The send buffer is empty and takes all of the answer.
func (s *Server) answerNow(fd int, h header, b []byte) (n int, done bool) {
	r := s.find(h.run)
	if r == nil || r.spec.Kind != TCPCRR {
		return headerLen, true
	}
	n = headerLen
	if r.spec.Size > inlineAnswer {
		return n, false
	}
	if r.spec.Size > headerLen {
		n += readNow(fd, b[headerLen:r.spec.Size])
	}
	if n < r.spec.Size {
		return n, false
	}
	_, _ = unix.Write(fd, b[:n]) // the client sees it
	return n, true
}

// entertain goes on with a connection in a goroutine of its own.
func (s *Server) entertain(ctx context.Context, fd int, start []byte) {
	select {
	case s.guests <- struct{}{}:
	default:
		s.log.Warn("accept: too many connections wait", "most", maxGuests)
		_ = unix.Close(fd)
		return
	}
	if !s.socks.add(fd) {
		<-s.guests
		_ = unix.Close(fd)
		return
	}
	s.work.Go(func() {
		defer func() { <-s.guests }()
		if !s.host(ctx, fd, start) {
			s.socks.close(fd)
		}
	})
}

// host reads the rest of the header and does what it asks for. It is true when
// fd is a run's now.
func (s *Server) host(ctx context.Context, fd int, start []byte) (taken bool) {
	if unix.SetNonblock(fd, false) != nil || timeout(stepTimeout)(fd) != nil {
		return false
	}
	if n := len(start); n < headerLen {
		start = append(start, make([]byte, headerLen-n)...)
		if readFull(fd, start[n:]) != nil {
			return false
		}
	}
	h, err := parseHeader(start)
	if err != nil {
		return false
	}
	switch h.role {
	case roleControl:
		s.control(ctx, fd)
	case roleData:
		return s.attachTCP(fd, h)
	case roleCRR:
		s.answer(fd, h, start)
	}
	return false
}

func (s *Server) answer(fd int, h header, start []byte) {
	r := s.find(h.run)
	if r == nil || r.spec.Kind != TCPCRR {
		return
	}
	b := make([]byte, r.spec.Size)
	n := copy(b, start)
	if readFull(fd, b[n:]) == nil {
		_ = writeAll(fd, b) // the client sees it
	}
}

// attachTCP makes fd a flow's.
func (s *Server) attachTCP(fd int, h header) bool {
	r := s.find(h.run)
	if r == nil || r.spec.Kind.udp() || timeout(0)(fd) != nil {
		return false
	}
	if r.spec.Kind == TCPRR && flag(unix.IPPROTO_TCP, unix.TCP_NODELAY)(fd) != nil {
		return false
	}
	s.socks.forget(fd)
	if r.attach(int(h.flow), fd) {
		return true
	}
	_ = unix.Close(fd)
	return true
}
