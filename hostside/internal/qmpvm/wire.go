package qmpvm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/digitalocean/go-qemu/qmp"
)

// maxLine caps one message of QEMU's: 80 times its largest usual one, the reply
// of query-qmp-schema.
const maxLine = 16 << 20

var errLineTooLong = fmt.Errorf("line longer than %d bytes", maxLine)

// readLine reads up to a newline, whatever the size of r's buffer. The slice is
// the caller's own.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, errLineTooLong
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// greeting is the first message of a QMP server.
type greeting struct {
	Version      qmp.Version `json:"version"`
	Capabilities []string    `json:"capabilities"`
}

// message is one line of QEMU's: exactly one of the three is set.
type message struct {
	greeting *greeting
	event    *qmp.Event
	reply    *reply
}

// reply answers the command with that id. known is false when QEMU couldn't
// tell which it was.
type reply struct {
	id    uint64
	known bool
	value json.RawMessage
	err   *Error
}

var errNoKind = errors.New("neither greeting, event nor reply")

// decode reads one line. What it returns shares no memory with line.
func decode(line []byte) (message, error) {
	var raw struct {
		qmp.Event
		QMP    *greeting       `json:"QMP"`
		ID     json.RawMessage `json:"id"`
		Return json.RawMessage `json:"return"`
		Error  *Error          `json:"error"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return message{}, fmt.Errorf("decode message: %w", err)
	}
	switch {
	case raw.QMP != nil:
		return message{greeting: raw.QMP}, nil
	case raw.Event.Event != "":
		return message{event: &raw.Event}, nil
	case raw.Return != nil || raw.Error != nil:
		r := &reply{value: raw.Return, err: raw.Error}
		id, err := strconv.ParseUint(string(raw.ID), 10, 64)
		r.id, r.known = id, err == nil
		return message{reply: r}, nil
	}
	return message{}, fmt.Errorf("decode message: %w", errNoKind)
}

// encode returns the line of a command.
func encode(cmd qmp.Command, id uint64) ([]byte, error) {
	args, err := json.Marshal(cmd.Args)
	if err != nil {
		return nil, fmt.Errorf("encode arguments: %w", err)
	}
	req := struct {
		Execute string          `json:"execute"`
		Args    json.RawMessage `json:"arguments,omitempty"`
		ID      uint64          `json:"id"`
	}{Execute: cmd.Execute, ID: id}
	// QEMU refuses "arguments": null.
	if !bytes.Equal(args, []byte("null")) {
		req.Args = args
	}
	line, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return append(line, '\n'), nil
}
