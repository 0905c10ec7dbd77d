package qmpvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Call is a command under way. QEMU runs commands in the order of their Start.
type Call struct {
	conn  *Conn
	name  string
	id    uint64
	line  []byte
	fds   []int // ours: copies of the caller's files
	reply chan *reply
}

// Start sends a command and doesn't wait for its answer. The caller may close
// files at once.
func (c *Conn) Start(ctx context.Context, cmd qmp.Command, files ...*os.File) (*Call, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Execute, context.Cause(ctx))
	}
	call := &Call{conn: c, name: cmd.Execute, reply: make(chan *reply, 1)}
	if err := c.prepare(call, cmd, files); err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Execute, err)
	}
	select {
	case c.out <- call:
		return call, nil
	case <-c.done:
		call.abandon()
		return nil, fmt.Errorf("%s: %w", cmd.Execute, c.Err())
	case <-ctx.Done():
		call.abandon()
		return nil, fmt.Errorf("%s: send: %w", cmd.Execute, context.Cause(ctx))
	}
}

func (c *Conn) prepare(call *Call, cmd qmp.Command, files []*os.File) error {
	if _, ok := c.nc.(*net.UnixConn); len(files) != 0 && !ok {
		return errNoDescriptors
	}
	c.mu.Lock()
	c.next++
	call.id = c.next
	c.mu.Unlock()
	var err error
	if call.line, err = encode(cmd, call.id); err != nil {
		return err
	}
	if call.fds, err = dup(files); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		closeAll(call.fds)
		return c.err
	}
	c.pending[call.id] = call
	return nil
}

// abandon undoes prepare.
func (call *Call) abandon() {
	call.forget()
	closeAll(call.fds)
}

func (call *Call) forget() {
	call.conn.mu.Lock()
	defer call.conn.mu.Unlock()
	delete(call.conn.pending, call.id)
}

// Wait returns the answer as [Conn.Do] does. Call it once.
func (call *Call) Wait(ctx context.Context) (json.RawMessage, error) {
	select {
	case r := <-call.reply:
		return call.answer(r)
	case <-call.conn.done:
	case <-ctx.Done():
		call.forget()
	}
	select {
	case r := <-call.reply: // it came at the same moment
		return call.answer(r)
	default:
	}
	if err := call.conn.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", call.name, err)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s: await reply: %w: qemu may be stopped", call.name, context.Cause(ctx))
	}
	return nil, fmt.Errorf("%s: await reply: %w", call.name, context.Cause(ctx))
}

func (call *Call) answer(r *reply) (json.RawMessage, error) {
	if r.err != nil {
		return nil, fmt.Errorf("%s: %w", call.name, r.err)
	}
	return r.value, nil
}

// write is the goroutine that owns writing.
func (c *Conn) write() {
	for {
		select {
		case call := <-c.out:
			err := send(c.nc, call.line, call.fds)
			closeAll(call.fds)
			if err != nil {
				c.fail(fmt.Errorf("qmp %s: send %s: %w: %w", c.path, call.name, err, vnic.ErrVMGone))
				return
			}
		case <-c.done:
			return
		}
	}
}

var errNoDescriptors = errors.New("this connection carries no descriptors, a unix socket does")

func send(nc net.Conn, line []byte, fds []int) error {
	uc, ok := nc.(*net.UnixConn)
	if len(fds) == 0 || !ok {
		_, err := nc.Write(line)
		return err
	}
	n, _, err := uc.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
	if err != nil || n == len(line) {
		return err
	}
	_, err = uc.Write(line[n:])
	return err
}

// dup copies descriptors, so that those sent live as long as the sending takes.
func dup(files []*os.File) ([]int, error) {
	var fds []int
	for _, f := range files {
		fd, err := dupFile(f)
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("copy descriptor of %s: %w", f.Name(), err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func dupFile(f *os.File) (fd int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := rc.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(ctlErr, err)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
