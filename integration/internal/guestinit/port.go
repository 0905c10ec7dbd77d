package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

// absentHost is how often a port without a host is looked at again: the
// kernel reports end of file at once for as long as nobody is connected, and
// poll(2) reports a hang-up, so there is no event to wait for.
const absentHost = 20 * time.Millisecond

// port is a virtio-serial port whose reads wait for the host to connect.
type port struct{ *os.File }

// openPort opens the harness's port.
func openPort() (port, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return port{}, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(b)) != labproto.PortName {
			continue
		}
		f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), os.O_RDWR, 0)
		return port{f}, err
	}
	return port{}, fmt.Errorf("no virtio-serial port is called %s", labproto.PortName)
}

// Read reads at least one byte.
func (p port) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		<-time.After(absentHost)
	}
}
