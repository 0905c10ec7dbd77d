package qmpvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/brfuse/brfuse/vnic"
)

// args are the arguments of a command.
type args map[string]any

// peripheral is where QEMU keeps devices that have an id.
const peripheral = "/machine/peripheral"

// devicePath is the QOM path of a vNIC's device.
func devicePath(id vnic.ID) string { return peripheral + "/" + id.DeviceID() }

// property is one entry of qom-list.
type property struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// askBatch bounds how many queries are sent ahead of their answers.
const askBatch = 64

// query is one question of a batch; the answer goes to into, a pointer.
type query struct {
	cmd   string
	args  args
	into  any
	found bool // out: false when what it asks about isn't there
}

func qomList(path string, into *[]property) *query {
	return &query{cmd: "qom-list", args: args{"path": path}, into: into}
}

func qomGet(path, name string, into any) *query {
	return &query{cmd: "qom-get", args: args{"path": path, "property": name}, into: into}
}

// ask puts questions to QEMU, many at a time. Objects and properties that don't
// exist leave their answers untouched: devices come and go meanwhile.
func (c *Conn) ask(ctx context.Context, queries ...*query) error {
	for len(queries) != 0 {
		n := min(len(queries), askBatch)
		if err := c.askSome(ctx, queries[:n]); err != nil {
			return err
		}
		queries = queries[n:]
	}
	return nil
}

func (c *Conn) askSome(ctx context.Context, queries []*query) error {
	var calls []*Call
	defer func() { // after an error nobody waits for the others
		for _, call := range calls {
			call.forget()
		}
	}()
	for _, q := range queries {
		call, err := c.Start(ctx, qmp.Command{Execute: q.cmd, Args: q.args})
		if err != nil {
			return err
		}
		calls = append(calls, call)
	}
	for i, q := range queries {
		value, err := calls[i].Wait(ctx)
		if _, refused := errors.AsType[*Error](err); refused {
			continue
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(value, q.into); err != nil {
			return fmt.Errorf("%s: decode answer: %w", q.cmd, err)
		}
		q.found = true
	}
	return nil
}

// run runs a command whose answer is empty.
func (v *VM) run(ctx context.Context, cmd string, a args) error {
	_, err := v.conn.Do(ctx, qmp.Command{Execute: cmd, Args: a})
	return err
}
