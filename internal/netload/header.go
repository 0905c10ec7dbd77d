package netload

import (
	"encoding/binary"
	"errors"
)

// runID names a run at its server. It is random, so that only who opened the
// run knows it.
type runID uint64

// role says what a TCP connection is for.
type role uint8

const (
	roleControl role = 1
	roleData    role = 2
	roleCRR     role = 3
)

// header is what every TCP connection begins with.
type header struct {
	role role
	flow uint8 // of roleData
	run  runID // not of roleControl
}

const (
	headerLen = 16
	magic     = 0x42724c31 // "BrL1"
)

var errHeader = errors.New("no netload header: is the peer a netload of the same version?")

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b, magic)
	b[4], b[5], b[6], b[7] = byte(h.role), h.flow, 0, 0
	binary.BigEndian.PutUint64(b[8:], uint64(h.run))
}

func parseHeader(b []byte) (header, error) {
	if len(b) < headerLen || binary.BigEndian.Uint32(b) != magic || b[6] != 0 || b[7] != 0 {
		return header{}, errHeader
	}
	h := header{role: role(b[4]), flow: b[5], run: runID(binary.BigEndian.Uint64(b[8:]))}
	if h.role < roleControl || h.role > roleCRR || h.flow >= MaxFlows {
		return header{}, errHeader
	}
	return h, nil
}

// datagram is what every datagram begins with. Phase 0 is the greeting, whose
// seq is the flow; other phases carry load.
type datagram struct {
	run   runID
	phase uint8
	seq   uint64 // 56 bits
}

const (
	datagramLen = 16
	seqBits     = 56
	seqMask     = 1<<seqBits - 1
)

func (d datagram) put(b []byte) {
	binary.BigEndian.PutUint64(b, uint64(d.run))
	binary.BigEndian.PutUint64(b[8:], uint64(d.phase)<<seqBits|d.seq&seqMask)
}

func parseDatagram(b []byte) (d datagram, ok bool) {
	if len(b) < datagramLen {
		return datagram{}, false
	}
	word := binary.BigEndian.Uint64(b[8:])
	return datagram{
		run:   runID(binary.BigEndian.Uint64(b)),
		phase: uint8(word >> seqBits),
		seq:   word & seqMask,
	}, true
}
