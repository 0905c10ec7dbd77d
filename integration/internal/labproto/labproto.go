// Package labproto is what the VM harness and PID 1 of its guests say to each
// other over a virtio-serial port: one JSON object a line.
//
// A virtio-serial port has no idea of a connection, so both sides name their
// session: the host starts one with [OpHello] and a fresh nonce, the guest ends
// what ran for the session before and answers. Lines of any other session are
// dropped on both sides, as are lines that can't be decoded.
package labproto

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PortName is the name of the virtio-serial port.
const PortName = "org.brfuse.lab.0"

// ReadyLine is printed on the guest's console when the port is being served.
const ReadyLine = "guestinit: ready"

// Sizes in bytes.
const (
	MaxLine   = 4 << 20   // longest line, with all that base64 adds
	MaxOutput = 1 << 20   // most that is kept of a command's stdout, and of its stderr
	Chunk     = 256 << 10 // most file content in one line
)

// Op is what a request asks for.
type Op string

// Operations. Each is answered by one [Reply] of the same id, but for OpCancel.
const (
	OpHello    Op = "hello"    // begin a session
	OpRun      Op = "run"      // run Argv with Stdin to its end: Stdout, Stderr, Code
	OpStart    Op = "start"    // start Argv, output to Log in /run/log: PID
	OpWait     Op = "wait"     // wait for the end of PID, which OpStart gave: Code
	OpSignal   Op = "signal"   // send Signal to PID
	OpPut      Op = "put"      // write Data at Offset of Path; at 0 the file is made anew with Mode
	OpGet      Op = "get"      // read up to Chunk bytes at Offset of Path: Data, EOF
	OpCancel   Op = "cancel"   // kill what request Target started, or stop its wait
	OpPoweroff Op = "poweroff" // turn the guest off; no answer need come
)

// Request is a line from the host.
type Request struct {
	Session string   `json:"session"`
	ID      uint64   `json:"id"`
	Op      Op       `json:"op"`
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"` // KEY=VALUE, added to the guest's
	Stdin   []byte   `json:"stdin,omitempty"`
	Netns   string   `json:"netns,omitempty"` // where Argv runs, as netnsx.Open takes it; default: the first namespace
	Log     string   `json:"log,omitempty"`   // a file's name; default: that of Argv's program with .log
	PID     int      `json:"pid,omitempty"`
	Signal  int      `json:"signal,omitempty"`
	Path    string   `json:"path,omitempty"`
	Offset  int64    `json:"offset,omitempty"`
	Mode    uint32   `json:"mode,omitempty"`
	Data    []byte   `json:"data,omitempty"`
	Target  uint64   `json:"target,omitempty"`
}

// Reply is a line from the guest.
type Reply struct {
	Session   string `json:"session"`
	ID        uint64 `json:"id"`
	Error     string `json:"error,omitempty"` // empty: done
	Stdout    []byte `json:"stdout,omitempty"`
	Stderr    []byte `json:"stderr,omitempty"`
	Truncated bool   `json:"truncated,omitempty"` // there was more output than MaxOutput
	Code      int    `json:"code,omitempty"`      // exit code, 128 + signal when killed
	PID       int    `json:"pid,omitempty"`
	Data      []byte `json:"data,omitempty"`
	EOF       bool   `json:"eof,omitempty"`
}

// Write writes v as one line. It starts with a newline too, so that what a
// dead session left half-written spoils no more than its own line.
func Write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	if len(b) > MaxLine {
		return fmt.Errorf("line of %d bytes is longer than %d", len(b), MaxLine)
	}
	line := make([]byte, 0, len(b)+2)
	line = append(line, '\n')
	line = append(line, b...)
	line = append(line, '\n')
	if _, err := w.Write(line); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return nil
}

// Read returns the next line that is a JSON object of type T and skips all
// others. The error is the reader's.
func Read[T Request | Reply](r *bufio.Reader) (T, error) {
	for {
		var v T
		line, err := readLine(r)
		if err != nil {
			return v, err
		}
		if len(line) > 0 && json.Unmarshal(line, &v) == nil {
			return v, nil
		}
	}
}

// readLine returns the next line, or nothing for one longer than MaxLine. An
// unfinished line before an error is lost.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if tooLong = tooLong || len(line)+len(part) > MaxLine; tooLong {
			line = nil
		} else {
			line = append(line, part...)
		}
		if err == nil {
			return bytes.TrimSpace(line), nil
		}
	}
}
