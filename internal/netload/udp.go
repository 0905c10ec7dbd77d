package netload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sendDatagrams is the active loop of a udp_stream.
func (p *party) sendDatagrams(f *flow, count uint64) error {
	b := make([]byte, p.spec.Size)
	d := datagram{run: p.run, phase: uint8(p.phase.Load())}
	pace, err := newPace(p.spec.Rate)
	if err != nil {
		return err
	}
	for ; d.seq < upTo(count) && !p.stop.Load(); d.seq++ {
		if pace.interval > 0 && !pace.wait(d.seq, p.stop.Load) {
			return nil
		}
		d.put(b)
		if err := writeDatagram(f.fd, b); err != nil {
			return err
		}
		f.sent.Store(d.seq + 1)
	}
	return nil
}

// receiveDatagrams is the passive loop of a udp_stream.
func (p *party) receiveDatagrams(f *flow) error {
	b := make([]byte, p.spec.Size+1)
	for {
		d, n, err := p.readDatagram(f.fd, b)
		switch {
		case err != nil:
			return err
		case n == p.spec.Size && d.phase != 0 && uint32(d.phase) == p.phase.Load():
			f.count(1)
		}
	}
}

// pingDatagrams is the active loop of a udp_rr.
func (p *party) pingDatagrams(f *flow, count uint64) error {
	b := make([]byte, p.spec.Size+1)
	d := datagram{run: p.run, phase: uint8(p.phase.Load())}
	last := time.Now()
	for ; d.seq < upTo(count) && !p.stop.Load(); d.seq++ {
		d.put(b)
		if err := writeDatagram(f.fd, b[:p.spec.Size]); err != nil {
			return err
		}
		f.sent.Store(d.seq + 1)
		switch answered, err := p.answer(f.fd, b, d); {
		case err != nil:
			return err
		case answered:
			last = p.exchanged(f, last)
		default:
			f.lost++
			last = time.Now()
		}
	}
	return nil
}

// answer waits for the answer to d. It is false when there is none in time.
func (p *party) answer(fd int, b []byte, d datagram) (bool, error) {
	for {
		got, n, err := p.readDatagram(fd, b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		case got == d && n == p.spec.Size:
			return true, nil
		}
	}
}

// echoDatagrams is the passive loop of a udp_rr.
func (p *party) echoDatagrams(f *flow) error {
	b := make([]byte, p.spec.Size+1)
	for {
		d, n, err := p.readDatagram(f.fd, b)
		if err != nil {
			return err
		}
		if d.phase == 0 || n != p.spec.Size {
			continue
		}
		if err := writeDatagram(f.fd, b[:n]); err != nil {
			return err
		}
	}
}

// readDatagram reads the next datagram of the run.
func (p *party) readDatagram(fd int, b []byte) (datagram, int, error) {
	for {
		n, err := readSome(fd, b)
		if err != nil && (!errors.Is(err, io.EOF) || p.socks.isDown()) { // an empty datagram is no end
			return datagram{}, 0, err
		}
		if d, ok := parseDatagram(b[:n]); ok && d.run == p.run {
			return d, n, nil
		}
	}
}

// writeDatagram sends b. What the system has no buffer for is lost like what
// gets lost later.
func writeDatagram(fd int, b []byte) error {
	for {
		_, errno := write(fd, b)
		switch errno {
		case 0, unix.ENOBUFS:
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			return os.ErrDeadlineExceeded
		case unix.EMSGSIZE:
			return fmt.Errorf("%d bytes are too many for this path: %w", len(b), errno)
		default:
			return errno
		}
	}
}

// pace tells when the next message is due. It sleeps in a blocking system
// call, as the loops wait in one.
type pace struct {
	interval time.Duration // 0: at once
	start    time.Time
	clock    int64 // CLOCK_MONOTONIC at start, ns
}

// longestNap bounds a sleep, so that halt is seen.
const longestNap = 50 * time.Millisecond

func newPace(rate float64) (pace, error) {
	if rate == 0 {
		return pace{}, nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return pace{}, fmt.Errorf("read clock: %w", err)
	}
	return pace{
		interval: max(time.Duration(float64(time.Second)/rate), 1),
		start:    time.Now(), clock: now.Nano(),
	}, nil
}

// wait sleeps until message n is due, and is false when it was to stop before.
func (p pace) wait(n uint64, stop func() bool) bool {
	due := time.Duration(n) * p.interval
	for !stop() {
		now := time.Since(p.start)
		if now >= due {
			return true
		}
		until := unix.NsecToTimespec(p.clock + int64(min(due, now+longestNap)))
		// An interrupted sleep is looked at again.
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &until, nil)
	}
	return false
}
