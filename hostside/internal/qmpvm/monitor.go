package qmpvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/brfuse/brfuse/hostside/internal/queue"
)

// Monitor is go-qemu's interface.
var _ qmp.Monitor = (*Conn)(nil)

// Subscription receives the events from its start on, each exactly once and in
// order. It holds any number of unread ones.
type Subscription struct {
	conn *Conn
	q    *queue.Queue[qmp.Event]
}

// Subscribe starts a subscription. Close it.
func (c *Conn) Subscribe() *Subscription {
	s := &Subscription{conn: c, q: queue.New[qmp.Event]()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[s] = struct{}{}
	if c.err != nil {
		s.q.End()
	}
	return s
}

// C carries the events. It is closed after Close, and after the last event when
// the connection is lost.
func (s *Subscription) C() <-chan qmp.Event { return s.q.Out() }

// Close ends the subscription. Unread events are gone.
func (s *Subscription) Close() {
	s.conn.mu.Lock()
	delete(s.conn.subs, s)
	s.conn.mu.Unlock()
	s.q.Drop()
}

// Connect implements [qmp.Monitor]. A Conn is connected from the start: Connect
// tells whether it still is.
func (c *Conn) Connect() error { return c.Err() }

// Disconnect implements [qmp.Monitor]: it is Close.
func (c *Conn) Disconnect() error { return c.Close() }

// Events implements [qmp.Monitor]. Each call has events of its own, until ctx ends.
func (c *Conn) Events(ctx context.Context) (<-chan qmp.Event, error) {
	if err := c.Err(); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	s := c.Subscribe()
	context.AfterFunc(ctx, s.Close)
	return s.C(), nil
}

// Run implements [qmp.Monitor]: it runs one command, given as JSON, and returns
// QEMU's answer as {"return": ...}. It waits as long as the connection lives;
// prefer [Conn.Do]. An id in the command is not sent, replies find their way
// without it.
func (c *Conn) Run(command []byte) ([]byte, error) {
	var cmd struct {
		Execute string          `json:"execute"`
		Args    json.RawMessage `json:"arguments"`
		ID      json.RawMessage `json:"id"`
	}
	dec := json.NewDecoder(bytes.NewReader(command))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cmd); err != nil {
		return nil, fmt.Errorf("run command: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("run command: more than one JSON value")
	}
	value, err := c.Do(context.Background(), qmp.Command{Execute: cmd.Execute, Args: cmd.Args})
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]json.RawMessage{"return": value})
}
