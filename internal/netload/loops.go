package netload

import (
	"math"
	"time"
)

// Bounds of waits.
const (
	stepTimeout   = 10 * time.Second               // a step of the protocol
	attachTimeout = 15 * time.Second               // all flows of a run
	attachPoll    = 100 * time.Millisecond         // the server, before it says which flows are missing
	drainTimeout  = 20 * time.Second               // what is on its way at the end of a phase
	runSlack      = attachTimeout + 3*drainTimeout // a run, beside its phases
	quiet         = 200 * time.Millisecond         // after which no more datagrams are expected
	replyTimeout  = 250 * time.Millisecond         // after which a datagram or its reply counts as lost
	crrTimeout    = 5 * time.Second                // a step of a tcp_crr: three retransmissions of a SYN fit in
)

// readBuffer is what a stream is read into.
const readBuffer = 128 << 10

// serve gives p the loops of a server.
func (p *party) serve() {
	switch p.spec.Kind {
	case TCPStream, UDPStream:
		p.stream(p.spec.Reverse)
	case TCPRR:
		p.passive = p.echo
	case UDPRR:
		p.passive = p.echoDatagrams
	case TCPCRR: // the server answers where it accepts
		p.flows = nil
	}
}

// load gives p the loops of a client.
func (p *party) load() {
	switch p.spec.Kind {
	case TCPStream, UDPStream:
		p.stream(!p.spec.Reverse)
	case TCPRR:
		p.active = p.ping
	case UDPRR:
		p.active = p.pingDatagrams
	case TCPCRR:
		p.active = nil // needs the server's address: see the client
	}
}

func (p *party) stream(sends bool) {
	switch {
	case sends && p.spec.Kind == TCPStream:
		p.active = p.send
	case sends:
		p.active = p.sendDatagrams
	case p.spec.Kind == TCPStream:
		p.passive = p.receive
	default:
		p.passive = p.receiveDatagrams
	}
}

// upTo is a loop's bound: count messages, or none.
func upTo(count uint64) uint64 {
	if count == 0 {
		return math.MaxUint64
	}
	return count
}
