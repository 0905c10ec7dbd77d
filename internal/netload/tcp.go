package netload

import (
	"time"
)

// send is the active loop of a tcp_stream.
func (p *party) send(f *flow, count uint64) error {
	b := make([]byte, p.spec.Size)
	for n := uint64(0); n < upTo(count) && !p.stop.Load(); n++ {
		if err := writeAll(f.fd, b); err != nil {
			return err
		}
		f.sent.Store(n + 1)
	}
	return nil
}

// receive is the passive loop of a tcp_stream.
func (p *party) receive(f *flow) error {
	b := make([]byte, readBuffer)
	for {
		n, err := readSome(f.fd, b)
		if err != nil {
			return err
		}
		f.count(uint64(n))
	}
}

// ping is the active loop of a tcp_rr. The end of an exchange is the begin
// of the next one, so that the clock is read once a message.
func (p *party) ping(f *flow, count uint64) error {
	b := make([]byte, p.spec.Size)
	last := time.Now()
	for n := uint64(0); n < upTo(count) && !p.stop.Load(); n++ {
		if err := writeAll(f.fd, b); err != nil {
			return err
		}
		f.sent.Store(n + 1)
		if err := readFull(f.fd, b); err != nil {
			return err
		}
		last = p.exchanged(f, last)
	}
	return nil
}

// exchanged counts an exchange that began at last, and returns its end.
func (p *party) exchanged(f *flow, last time.Time) time.Time {
	now := time.Now()
	if p.stop.Load() {
		f.late++
		return now
	}
	f.latency.Record(now.Sub(last))
	f.received.Add(1)
	return now
}

// echo is the passive loop of a tcp_rr.
func (p *party) echo(f *flow) error {
	b := make([]byte, p.spec.Size)
	for {
		if err := readFull(f.fd, b); err != nil {
			return err
		}
		if err := writeAll(f.fd, b); err != nil {
			return err
		}
	}
}
