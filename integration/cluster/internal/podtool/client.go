package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// step is between two rounds of a flow.
const step = 10 * time.Millisecond

// flow sends numbers to an echo server over one connection, the next when the last
// has come back, and writes into a file how many have. Only an error ends it.
func flow(address, file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	c, err := net.Dial("tcp", address) //nolint:noctx // as long as TCP tries
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 8)
	tick := time.NewTicker(step)
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(buf, n)
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(buf); got != n {
			return fmt.Errorf("%d came back, want %d", got, n)
		}
		if _, err := out.WriteAt(fmt.Appendf(nil, "%020d", n), 0); err != nil {
			return err
		}
		<-tick.C
	}
}

// stream sends so many bytes to an echo server and reads them meanwhile. It prints the
// size of the segments that it sent.
func stream(address string, size int64) error {
	c, err := net.Dial("tcp", address) //nolint:noctx // as long as TCP tries
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, size)
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, c, size); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("write: %w", err)
	}
	mss, err := segment(c.(*net.TCPConn))
	if err != nil {
		return err
	}
	fmt.Println(mss)
	return nil
}

// segment returns the size in bytes of the segments that a connection sends.
func segment(c *net.TCPConn) (mss uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return info.Snd_mss, nil
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
