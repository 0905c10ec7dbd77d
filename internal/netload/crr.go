package netload

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// errAnswer is returned when the answer of a tcp_crr isn't of the right length.
var errAnswer = errors.New("the server closed too early or sent too much")

// connectLoop returns the active loop of a tcp_crr against to. Its sockets are
// made in the party's namespace.
func (p *party) connectLoop(to netip.AddrPort) func(f *flow, count uint64) error {
	return func(f *flow, count uint64) error {
		return p.within(func() error { return p.connects(f, count, to) })
	}
}

func (p *party) connects(f *flow, count uint64, to netip.AddrPort) error {
	sa, family := sockaddr(to) // a loop's own: connect writes to it
	b := make([]byte, p.spec.Size+1)
	header{role: roleCRR, run: p.run}.put(b)
	request := make([]byte, p.spec.Size)
	copy(request, b)
	last := time.Now()
	for n := uint64(0); n < upTo(count) && !p.stop.Load(); n++ {
		f.sent.Store(n + 1)
		if err := exchange(sa, family, request, b); err != nil {
			return err
		}
		last = p.exchanged(f, last)
	}
	return nil
}

var crrOptions = []func(int) error{timeout(crrTimeout)}

// exchange is one tcp_crr. The server closes first: its end keeps the
// TIME_WAIT, and ours has its port back.
func exchange(to unix.Sockaddr, family int, request, b []byte) error {
	fd, err := newSocket(family, unix.SOCK_STREAM, crrOptions...)
	if err != nil {
		return err
	}
	if err = connect(fd, to); err != nil {
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			err = fmt.Errorf("%w: all ports are in use; widen net.ipv4.ip_local_port_range or make the run shorter", err)
		}
		err = fmt.Errorf("connect: %w", err)
	} else {
		err = converse(fd, request, b)
	}
	if closeErr := unix.Close(fd); err == nil {
		err = closeErr
	}
	return err
}

func converse(fd int, request, b []byte) error {
	if err := writeAll(fd, request); err != nil {
		return err
	}
	for got := 0; ; {
		n, err := readSome(fd, b[got:])
		got += n
		switch {
		case err == io.EOF && got == len(request): //nolint:errorlint // readSome gives it bare; this is a hot loop
			return nil
		case err == io.EOF, got > len(request): //nolint:errorlint // likewise
			return errAnswer
		case err != nil:
			return err
		}
	}
}
