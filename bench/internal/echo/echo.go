// Package echo tells when a host starts to answer pings.
package echo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// interval is how often a request is repeated. The kernel keeps the first ones
// until ARP has found the address, so the first answer comes right after it.
const interval = time.Millisecond

// Pinger sends ICMP echo requests (RFC 792) from a network namespace. One
// goroutine may use it at a time.
type Pinger struct {
	conn *net.IPConn
	id   uint16
}

// New returns a Pinger of a namespace. It is closed when no longer needed.
func New(ns *netnsx.NS) (*Pinger, error) {
	p := &Pinger{id: uint16(os.Getpid())}
	err := ns.Do(func() (err error) { // the socket stays in the namespace
		p.conn, err = net.ListenIP("ip4:icmp", nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open ping socket: %w", err)
	}
	return p, nil
}

// Close closes the socket.
func (p *Pinger) Close() error { return p.conn.Close() }

// reply is when the first one came, or why none did.
type reply struct {
	at  time.Time
	err error
}

// First sends requests, the first one at once, and returns when the first reply
// came. The error says what was awaited when ctx ends before.
func (p *Pinger) First(ctx context.Context, to netip.Addr) (time.Time, error) {
	if err := p.conn.SetReadDeadline(time.Time{}); err != nil {
		return time.Time{}, fmt.Errorf("ping %s: %w", to, err)
	}
	received := make(chan reply, 1)
	go func() { received <- p.receive(to) }()
	at, err := p.send(ctx, to, received)
	if err != nil {
		return at, fmt.Errorf("ping %s: %w", to, err)
	}
	return at, nil
}

// send sends requests until something has been received, or can't be.
func (p *Pinger) send(ctx context.Context, to netip.Addr, received <-chan reply) (time.Time, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	dest := &net.IPAddr{IP: to.AsSlice()}
	for seq := uint16(0); ; seq++ {
		_, err := p.conn.WriteTo(request(p.id, seq), dest)
		if err == nil {
			select {
			case r := <-received:
				return r.at, r.err
			case <-tick.C:
				continue
			case <-ctx.Done():
				err = fmt.Errorf("await echo reply: %w", context.Cause(ctx))
			}
		}
		err = errors.Join(err, p.conn.SetReadDeadline(time.Now())) // makes receive end
		<-received
		return time.Time{}, err
	}
}

// receive reads until the first reply.
func (p *Pinger) receive(from netip.Addr) reply {
	for buf := make([]byte, 1500); ; {
		n, peer, err := p.conn.ReadFromIP(buf) // without the IP header
		if err != nil {
			return reply{err: err}
		}
		if peer.IP.Equal(from.AsSlice()) && isReply(buf[:n], p.id) {
			return reply{at: time.Now()}
		}
	}
}

const (
	typeReply   = 0
	typeRequest = 8
	headerSize  = 8 // type, code, checksum, identifier, sequence number
)

func request(id, seq uint16) []byte {
	b := make([]byte, headerSize)
	b[0] = typeRequest
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	sum := uint32(typeRequest)<<8 + uint32(id) + uint32(seq)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

func isReply(b []byte, id uint16) bool {
	return len(b) >= headerSize && b[0] == typeReply && binary.BigEndian.Uint16(b[4:]) == id
}
