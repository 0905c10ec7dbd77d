package vmlab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Monitor is a QMP connection to a guest's QEMU, with no more to it than tests
// need. It is safe for concurrent use.
type Monitor struct {
	conn *net.UnixConn

	writeMu sync.Mutex // held while a command is written

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan message
	events  []Event
	changed chan struct{} // closed and made anew when an event is added

	lost chan struct{} // closed when nothing more will come
}

// Event is an event of QEMU.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// message is a line from QEMU.
type message struct {
	Event
	ID     uint64          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct{ Class, Desc string }
}

func newMonitor(conn net.Conn) *Monitor {
	m := &Monitor{
		conn: conn.(*net.UnixConn), pending: map[uint64]chan message{},
		changed: make(chan struct{}), lost: make(chan struct{}),
	}
	go m.read()
	return m
}

func (m *Monitor) read() {
	defer close(m.lost)
	r := bufio.NewReader(m.conn)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var msg message
		if json.Unmarshal(line, &msg) == nil {
			m.deliver(msg)
		}
	}
}

func (m *Monitor) deliver(msg message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if msg.Name != "" {
		m.events = append(m.events, msg.Event)
		close(m.changed)
		m.changed = make(chan struct{})
		return
	}
	if ch, ok := m.pending[msg.ID]; ok {
		delete(m.pending, msg.ID)
		ch <- msg // has room for it
	}
}

// Do runs a command with its arguments, which may be nil, passes files along,
// as getfd wants one, and returns what the command returned. It closes no file.
func (m *Monitor) Do(ctx context.Context, command string, args any, files ...*os.File) (json.RawMessage, error) {
	ch := make(chan message, 1)
	m.mu.Lock()
	m.lastID++
	id := m.lastID
	m.pending[id] = ch
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.pending, id)
	}()
	if err := m.send(id, command, args, files); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case msg := <-ch:
		if msg.Error != nil {
			return nil, fmt.Errorf("qmp %s: %s: %s", command, msg.Error.Class, msg.Error.Desc)
		}
		return msg.Return, nil
	case <-m.lost:
		return nil, fmt.Errorf("qmp %s: qemu is gone: %w", command, net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp %s: no answer: %w", command, context.Cause(ctx))
	}
}

func (m *Monitor) send(id uint64, command string, args any, files []*os.File) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	_, _, err = m.conn.WriteMsgUnix(append(b, '\n'), oob, nil)
	return err
}

// Mark is a point in the sequence of a monitor's events.
type Mark int

// Mark returns the present point. Take it before the command whose event is
// to be awaited.
func (m *Monitor) Mark() Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Mark(len(m.events))
}

// Await returns the first event after the mark that fits.
func (m *Monitor) Await(ctx context.Context, after Mark, fits func(Event) bool) (Event, error) {
	for {
		m.mu.Lock()
		events, changed := m.events[after:], m.changed
		m.mu.Unlock()
		for _, ev := range events {
			if fits(ev) {
				return ev, nil
			}
		}
		after += Mark(len(events))
		select {
		case <-changed:
		case <-m.lost:
			return Event{}, errors.New("await qmp event: qemu is gone")
		case <-ctx.Done():
			return Event{}, fmt.Errorf("await qmp event: %w", context.Cause(ctx))
		}
	}
}

// AwaitDeleted waits until QEMU has told that a device is gone.
func (m *Monitor) AwaitDeleted(ctx context.Context, after Mark, device string) error {
	_, err := m.Await(ctx, after, func(ev Event) bool {
		var data struct{ Device string }
		return ev.Name == "DEVICE_DELETED" && json.Unmarshal(ev.Data, &data) == nil && data.Device == device
	})
	if err != nil {
		return fmt.Errorf("device %s: %w", device, err)
	}
	return nil
}

// close ends the connection. Calls in flight fail.
func (m *Monitor) close() {
	m.conn.Close()
	<-m.lost
}
