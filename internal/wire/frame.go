package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the protocol that this package speaks. The layout
// of a [Frame] is the same in all versions, so that two sides of different
// versions can tell each other.
const Version = 1

// frameSize is the size of an encoded frame in bytes.
const frameSize = 32

// magic starts a frame. Its first byte is neither a yamux version nor valid in
// UTF-8, so a mux that meets a frame fails at once.
var magic = [8]byte{0xf5, 'B', 'R', 'F', 'U', 'S', 'E', '\n'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFrame is returned when bytes are no frame.
var errFrame = errors.New("not a frame")

// kind says what a frame means.
type kind uint8

const (
	kindReset kind = 1 // guest: a port was opened, whatever was before is over
	kindHello kind = 2 // host: proposes a nonce
	kindAck   kind = 3 // guest: has the nonce
	kindStart kind = 4 // host: the session starts behind this frame
	kindReady kind = 5 // guest: the session starts behind this frame
	kindPing  kind = 6 // host: heartbeat
	kindPong  kind = 7 // guest: heartbeat's answer
)

func (k kind) String() string {
	names := [...]string{"", "RESET", "HELLO", "ACK", "START", "READY", "PING", "PONG"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return names[k]
}

// Nonce tells sessions apart. It is random.
type Nonce [16]byte

func newNonce() Nonce {
	var n Nonce
	rand.Read(n[:]) // it never returns an error (Go 1.24)
	return n
}

// String returns the first bytes in hex, enough for a log.
func (n Nonce) String() string { return hex.EncodeToString(n[:4]) }

// frame is the unit of the handshake and of the heartbeat.
type frame struct {
	version uint16
	kind    kind
	nonce   Nonce
}

// encode returns f as it goes over the wire.
func (f frame) encode() []byte {
	b := make([]byte, 0, frameSize)
	b = append(b, magic[:]...)
	b = binary.BigEndian.AppendUint16(b, f.version)
	b = append(b, byte(f.kind), 0)
	b = append(b, f.nonce[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeFrame reads a frame from the first frameSize bytes of b. Frames of any
// version and kind decode; everything else is an errFrame.
func decodeFrame(b []byte) (frame, error) {
	if len(b) < frameSize {
		return frame{}, fmt.Errorf("%d bytes of %d: %w", len(b), frameSize, errFrame)
	}
	if !bytes.Equal(b[:len(magic)], magic[:]) {
		return frame{}, fmt.Errorf("no magic: %w", errFrame)
	}
	if sum := crc32.Checksum(b[:frameSize-4], castagnoli); binary.BigEndian.Uint32(b[frameSize-4:frameSize]) != sum {
		return frame{}, fmt.Errorf("checksum: %w", errFrame)
	}
	if b[11] != 0 {
		return frame{}, fmt.Errorf("reserved byte is %#x: %w", b[11], errFrame)
	}
	return frame{
		version: binary.BigEndian.Uint16(b[8:10]),
		kind:    kind(b[10]),
		nonce:   Nonce(b[12:28]),
	}, nil
}
