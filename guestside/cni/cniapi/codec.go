package cniapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxMessage is the longest message in bytes. A garbage collection that names
// two thousand attachments takes the fifth part of it.
const MaxMessage = 1 << 20

// ErrTooLong is returned for a message of more than [MaxMessage] bytes.
var ErrTooLong = fmt.Errorf("message is longer than %d bytes", MaxMessage)

// Write writes a message.
func Write(w io.Writer, m any) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("encode message: %w", ErrTooLong)
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// ReadRequest reads a request and checks it. What is wrong with what it says is
// an [Error].
func ReadRequest(r *bufio.Reader) (Request, error) {
	m, err := read[Request](r)
	if err != nil {
		return m, err
	}
	return m, m.Validate()
}

// ReadResponse reads a response.
func ReadResponse(r *bufio.Reader) (Response, error) {
	m, err := read[Response](r)
	if err == nil && m.Version != Version {
		err = VersionError(Version, m.Version)
	}
	return m, err
}

// read reads a line of at most MaxMessage bytes, and takes no more memory than
// that for it.
func read[T Request | Response](r *bufio.Reader) (m T, err error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > MaxMessage+1 {
			return m, fmt.Errorf("read message: %w", ErrTooLong)
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return m, fmt.Errorf("read message: %w", err)
		}
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), &m); err != nil {
		return m, &Error{Code: 6, Msg: "malformed message", Details: err.Error()}
	}
	return m, nil
}
