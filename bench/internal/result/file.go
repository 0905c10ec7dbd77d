package result

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/brfuse/brfuse/internal/partfile"
)

// maxLine bounds a line, in bytes. A histogram of some ten thousand latencies
// takes a few KiB.
const maxLine = 4 << 20

// ReadFiles reads what Writers wrote. Each file is a run of its own. A file that is
// named twice is refused: it would count twice.
func ReadFiles(paths ...string) (*Set, error) {
	s := &Set{}
	for i, path := range paths {
		if same(paths[:i], path) {
			return nil, fmt.Errorf("read samples: %s is named twice", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read samples: %w", err)
		}
		err = s.Read(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read samples: %s: %w", path, err)
		}
	}
	return s, nil
}

// same tells whether a file is one of others.
func same(others []string, path string) bool {
	st, err := os.Stat(path)
	return err == nil && slices.ContainsFunc(others, func(o string) bool {
		other, err := os.Stat(o)
		return err == nil && os.SameFile(st, other)
	})
}

// Read adds a run. Lines of a kind that it doesn't know are passed over, and so is a
// last one that was cut off, as of a run that was killed. An error names the line.
func (s *Set) Read(r io.Reader) error {
	s.Begin()
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	in.Split(withEnds)
	n := 1
	for ; in.Scan(); n++ {
		err := s.line(in.Bytes())
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && !bytes.HasSuffix(in.Bytes(), newline) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n, err)
	}
	return nil
}

var newline = []byte("\n")

// withEnds is [bufio.ScanLines] that leaves lines their ends.
func withEnds(data []byte, atEOF bool) (advance int, token []byte, err error) {
	n := bytes.Index(data, newline) + 1
	if n == 0 && atEOF {
		n = len(data)
	}
	if n == 0 {
		return 0, nil, nil
	}
	return n, data[:n], nil
}

func (s *Set) line(b []byte) error {
	var l struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	switch l.Kind {
	case "":
		return errors.New("no kind: not a line of a network benchmark")
	case environmentKind:
		var e Environment
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		s.AddEnvironment(e)
	case sampleKind:
		var m Sample
		if err := json.Unmarshal(b, &m); err != nil {
			return err
		}
		return s.Add(m)
	}
	return nil
}

// Writer writes a run down, and keeps it. It isn't safe for concurrent use.
type Writer struct {
	set Set
	enc *json.Encoder
	c   io.Closer
}

// Create returns a Writer to a new file, as [partfile.File] is one, which Close
// closes; an empty path is none, and then the samples are kept only.
func Create(path string) (*Writer, error) {
	if path == "" {
		return &Writer{}, nil
	}
	f, err := partfile.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create file of samples: %w", err)
	}
	return &Writer{enc: json.NewEncoder(f), c: f}, nil
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{enc: json.NewEncoder(w)} }

// Sample checks, keeps and writes a sample. Its kind is set.
func (w *Writer) Sample(m Sample) error {
	m.Kind = sampleKind
	if err := w.set.Add(m); err != nil {
		return fmt.Errorf("write sample: %w", err)
	}
	return w.write(m)
}

// Environment keeps and writes an environment. Its kind is set.
func (w *Writer) Environment(e Environment) error {
	e.Kind = environmentKind
	w.set.AddEnvironment(e)
	return w.write(e)
}

// Set returns what was written so far.
func (w *Writer) Set() *Set { return &w.set }

// Close closes the file of Create.
func (w *Writer) Close() error {
	if w.c == nil {
		return nil
	}
	return w.c.Close()
}

func (w *Writer) write(v any) error {
	if w.enc == nil {
		return nil
	}
	if err := w.enc.Encode(v); err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return nil
}
