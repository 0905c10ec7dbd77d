package netload

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// greet takes the first datagrams of flows. Those after it go to the flow's
// own socket, which is connected and so preferred by the kernel.
func (s *Server) greet() {
	b := make([]byte, datagramLen)
	for !s.socks.isDown() {
		n, from, err := unix.Recvfrom(s.udp, b, 0)
		switch {
		case err == nil && from != nil:
			if d, ok := parseDatagram(b[:n]); ok && d.phase == 0 {
				s.meet(d, addrPort(from))
			}
		case err == nil, errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED): // nil: when shut down
		default:
			if !s.socks.isDown() {
				s.log.Error("receive datagrams: the server is closing", "err", err)
				s.shutdown()
			}
		}
	}
}

// meet makes the socket of the flow that d greets from peer. A greeting that
// comes again is ignored.
func (s *Server) meet(d datagram, peer netip.AddrPort) {
	r := s.find(d.run)
	// Only the client itself: a forged sender must not get what the run sends.
	if r == nil || peer.Addr().Unmap() != r.peer || !r.spec.Kind.udp() || d.seq >= uint64(r.spec.Flows) || r.attached(int(d.seq)) {
		return
	}
	var fd int
	err := s.opts.Within(func() (err error) {
		local := netip.AddrPortFrom(r.local, s.addr.Port())
		_, family := sockaddr(local)
		fd, err = newSocket(family, unix.SOCK_DGRAM, flag(unix.SOL_SOCKET, unix.SO_REUSEADDR), bindTo(local), connectTo(peer))
		return err
	})
	if err != nil {
		s.log.Warn("make socket of a flow", "peer", peer, "err", err)
		return
	}
	if !r.attach(int(d.seq), fd) {
		_ = unix.Close(fd)
	}
}
