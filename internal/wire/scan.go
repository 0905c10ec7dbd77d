package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
)

// maxSkip is how many bytes between frames a host bears in one handshake: more
// than all buffers of a virtio-serial port can hold of an old session.
const maxSkip = 4 << 20

// errGarbage is returned when more than maxSkip bytes were no frame.
var errGarbage = errors.New("nothing but garbage")

// scanner finds frames among other bytes.
type scanner struct {
	r       *bufio.Reader
	skipped int
}

// next returns the next frame. It consumes nothing behind it.
func (s *scanner) next() (frame, error) {
	for {
		b, err := s.r.Peek(max(frameSize, s.r.Buffered()))
		if err != nil {
			return frame{}, err
		}
		skip := bytes.Index(b, magic[:])
		switch {
		case skip == 0:
			if f, err := decodeFrame(b); err == nil {
				_, err = s.r.Discard(frameSize)
				return f, err
			}
			skip = 1
		case skip < 0:
			skip = len(b) - len(magic) + 1 // a magic may begin in the last bytes
		}
		if s.skipped += skip; s.skipped > maxSkip {
			return frame{}, fmt.Errorf("%d bytes: %w", s.skipped, errGarbage)
		}
		if _, err := s.r.Discard(skip); err != nil {
			return frame{}, err
		}
	}
}
