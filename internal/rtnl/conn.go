package rtnl

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Conn is an rtnetlink socket that sends several requests at a time. Against
// [Handle] it saves system calls: a guest under emulation pays a good part of a
// millisecond for each round. It stays in the network namespace in which it was
// made, whatever its users' threads do, and is safe for concurrent use.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf *buffer
}

// buffer takes one message of the kernel's. The kernel cuts dumps to fit, but not
// a single link, which has under 4 KiB, or three attributes of 64 KiB when root
// in a pod has given it all the names that it can have.
type buffer [256 << 10]byte

// buffers are used again: connections are many and short-lived, and a fresh
// buffer for each would keep a small guest's garbage collector busy.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// Dial returns a connection to the calling thread's network namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	c := &Conn{fd: fd, buf: buffers.Get().(*buffer)}
	if err := c.setup(); err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink: %w", err), c.Close())
	}
	return c, nil
}

func (c *Conn) setup() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Errors come with the kernel's own words and without a copy of the request.
	// Kernels before 4.12 know no such words; that is no reason to fail.
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, opt, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
	}
	return nil
}

// Close closes the socket. It is called once.
func (c *Conn) Close() error {
	buffers.Put(c.buf)
	if err := unix.Close(c.fd); err != nil {
		return fmt.Errorf("close rtnetlink: %w", err)
	}
	return nil
}

// batch is how many requests are sent in one message. More of them, or their
// errors, might not fit into the buffers of the socket.
const batch = 256

// Do sends all of reqs, in one message if they are not very many. The kernel
// carries out each of them in order, also those behind one that fails. It
// returns the first error of a request that isn't optional, with what the
// request was for; test for it by [errors.Is] with an errno.
func (c *Conn) Do(reqs ...Request) error {
	var first error
	for some := range slices.Chunk(reqs, batch) {
		if err := c.do(some); first == nil {
			first = err
		}
	}
	return first
}

func (c *Conn) do(reqs []Request) error {
	for range dumpTries {
		for i := range reqs {
			if reqs[i].reset != nil {
				reqs[i].reset()
			}
		}
		err := c.exchange(reqs)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nl.ErrDumpInterrupted
}

// exchange sends reqs and reads until the kernel is done with all of them.
func (c *Conn) exchange(reqs []Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := exchange{first: c.seq + 1, reqs: reqs, pending: 1}
	var out []byte
	for i, r := range reqs {
		c.seq++
		r.msg.Seq = c.seq
		switch last := i == len(reqs)-1; {
		case r.isDump() && !last:
			x.pending++
		case last:
			// Errors come unasked, and requests are served in order: the last
			// one's acknowledgment says that all are done, but for dumps.
			r.msg.Flags |= unix.NLM_F_ACK
		}
		out = append(out, r.msg.Serialize()...)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	for x.pending > 0 {
		n, err := c.receive()
		if err != nil {
			return err
		}
		if err := x.read(c.buf[:n]); err != nil {
			return err
		}
	}
	return x.result()
}

// receive reads one datagram of the kernel.
func (c *Conn) receive() (int, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(c.fd, c.buf[:], nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("receive from rtnetlink: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return 0, fmt.Errorf("receive from rtnetlink: a message is longer than %d bytes", len(c.buf))
		}
		if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
			return n, nil
		}
		// Not from the kernel: any process may send here.
	}
}

// exchange is the state of reading the answers to some requests.
type exchange struct {
	first       uint32 // the first request's sequence number
	reqs        []Request
	pending     int // dumps that are not done, and the last request
	answers     int
	interrupted bool
	err         error
}

func (x *exchange) result() error {
	if x.err == nil && x.interrupted {
		return nl.ErrDumpInterrupted
	}
	return x.err
}

// maxAnswers is how many messages of an answer are kept: more routes or addresses
// than a pod has any use for, but root in a pod can make still more.
const maxAnswers = 1 << 18

// read takes in one datagram.
func (x *exchange) read(b []byte) error {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return fmt.Errorf("parse rtnetlink message: %w", err)
	}
	for _, m := range msgs {
		i := m.Header.Seq - x.first // wraps: numbers before the first become large
		if uint64(i) >= uint64(len(x.reqs)) {
			continue // a late answer to an exchange that was given up
		}
		if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
			x.interrupted = true
		}
		r := &x.reqs[i]
		switch m.Header.Type {
		case unix.NLMSG_ERROR:
			x.done(r, int(i), parseAck(m))
		case unix.NLMSG_DONE:
			x.done(r, int(i), parseDone(m))
		default:
			if r.reply == nil {
				continue
			}
			if x.answers++; x.answers > maxAnswers { // read on: the socket is used again
				x.err = cmp.Or(x.err, fmt.Errorf("%s: the kernel has more than %d", r.what, maxAnswers))
				continue
			}
			if err := r.reply(m); err != nil {
				return fmt.Errorf("%s: %w", r.what, err)
			}
		}
	}
	return nil
}

// done notes that request i ended.
func (x *exchange) done(r *Request, i int, err error) {
	if r.isDump() || i == len(x.reqs)-1 {
		x.pending--
	}
	if err == nil || x.err != nil {
		return
	}
	for _, tolerated := range r.tolerate {
		if errors.Is(err, tolerated) {
			return
		}
	}
	x.err = fmt.Errorf("%s: %w", r.what, err)
}

// parseDone reads the end of a dump, which may carry an errno.
func parseDone(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return nil
	}
	return errnoOf(m.Data)
}

// parseAck reads an NLMSG_ERROR: nil for an acknowledgment, else the errno
// with the kernel's words about it.
func parseAck(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4+unix.SizeofNlMsghdr {
		return fmt.Errorf("short acknowledgment of %d bytes", len(m.Data))
	}
	err := errnoOf(m.Data)
	if err == nil || m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	rest := m.Data[4:]
	skip := unix.SizeofNlMsghdr
	if m.Header.Flags&unix.NLM_F_CAPPED == 0 {
		skip = int(nl.NativeEndian().Uint32(rest))
	}
	if skip > len(rest) {
		return err
	}
	attrs, parseErr := parseAttrs(rest[skip:])
	if parseErr != nil {
		return err //nolint:nilerr // the errno is what counts
	}
	for _, a := range attrs {
		if a.kind == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", err, unix.ByteSliceToString(a.value))
		}
	}
	return err
}

func errnoOf(b []byte) error {
	if e := int32(nl.NativeEndian().Uint32(b)); e < 0 {
		return unix.Errno(-e)
	}
	return nil
}
