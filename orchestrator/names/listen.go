package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Listen is the default [Listener]: sockets in the caller's network namespace, bound to the
// gateway's address whether it exists already or not (IP_FREEBIND in ip(7)), so that
// the bridge may come later, or go and come again. They are not bound to the bridge:
// that would need it to exist, and keep the hypervisor itself from asking.
func Listen(ctx context.Context, n vnic.Network, gateway netip.AddrPort) (*net.UDPConn, net.Listener, error) {
	lc := net.ListenConfig{Control: freebind}
	pc, err := lc.ListenPacket(ctx, "udp", gateway.String())
	if err != nil {
		return nil, nil, fmt.Errorf("network %s: %w", n.Name, err)
	}
	udp := pc.(*net.UDPConn) // what "udp" gives
	l, err := lc.Listen(ctx, "tcp", gateway.String())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("network %s: %w", n.Name, err), udp.Close())
	}
	return udp, l, nil
}

// freebind lets a socket be bound to an address that the machine doesn't have.
func freebind(network, _ string, c syscall.RawConn) error {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if network == "udp6" || network == "tcp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("let a socket be bound to an address that is to come: %w", err)
	}
	return nil
}

// onlyOwn accepts connections from the clients of a network, so many of each.
type onlyOwn struct {
	net.Listener
	n *served
}

func (l onlyOwn) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := address(c.RemoteAddr())
		switch {
		case !l.n.own(client):
			l.n.stats.foreign.Add(1)
		case !l.n.conns.enter(client):
			l.n.stats.busy.Add(1)
		default:
			return &conn{Conn: c, leave: func() { l.n.conns.leave(client) }}, nil
		}
		_ = c.Close() // unanswered anyway
	}
}

// address returns the address of an IP endpoint, or the zero one.
func address(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
