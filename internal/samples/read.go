package samples

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// maxLine bounds a line, in bytes. What is written here is far shorter.
const maxLine = 64 << 10

// Set is what files of samples have.
type Set struct {
	// Series are in milliseconds, without the samples of rounds to warm up.
	Series map[string][]float64
	Ratios []Ratio
}

// ReadFiles reads what Recorders wrote, one file after the other.
func ReadFiles(paths ...string) (Set, error) {
	s := Set{Series: map[string][]float64{}}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return s, fmt.Errorf("read samples: %w", err)
		}
		err = s.Read(f)
		f.Close()
		if err != nil {
			return s, fmt.Errorf("read samples: %s: %w", path, err)
		}
	}
	return s, nil
}

// Read adds the samples and ratios of r. Lines of another kind are passed over.
func (s *Set) Read(r io.Reader) error {
	if s.Series == nil {
		s.Series = map[string][]float64{}
	}
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	n := 1
	for ; in.Scan(); n++ {
		if err := s.line(in.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n, err)
	}
	return nil
}

func (s *Set) line(b []byte) error {
	var l struct {
		Sample
		Ratio
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	switch {
	case l.Name != "":
		s.Ratios = append(s.Ratios, l.Ratio)
	case l.Series != "" && l.Nanoseconds < 0:
		return fmt.Errorf("series %s: a sample of %s", l.Series, l.Nanoseconds)
	case l.Series != "" && l.Round > 0:
		s.Series[l.Series] = append(s.Series[l.Series], l.Nanoseconds.Seconds()*1e3)
	}
	return nil
}
