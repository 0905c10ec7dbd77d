package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"

	"github.com/brfuse/brfuse/vnic"
)

// PortName is the name of the virtio-serial port that agents listen on.
const PortName = "org.brfuse.agent.0"

// Channel is where a host reaches a VM's agent.
type Channel struct {
	// Path of a unix socket, that of a virtio-serial port. Empty: vsock.
	Path string
	// CID and Port are the vsock address.
	CID, Port uint32
}

// ParseChannel reads an absolute path, "unix:PATH" or "vsock:CID:PORT". The
// error is [vnic.ErrInvalid].
func ParseChannel(s string) (Channel, error) {
	if rest, ok := strings.CutPrefix(s, "vsock:"); ok {
		cid, port, _ := strings.Cut(rest, ":")
		c, cerr := strconv.ParseUint(cid, 10, 32)
		p, perr := strconv.ParseUint(port, 10, 32)
		if cerr != nil || perr != nil || c <= vsock.Host {
			return Channel{}, fmt.Errorf("channel %q is not vsock:CID:PORT with a guest's CID, 3 or more: %w", s, vnic.ErrInvalid)
		}
		return Channel{CID: uint32(c), Port: uint32(p)}, nil
	}
	path := strings.TrimPrefix(s, "unix:")
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return Channel{}, fmt.Errorf("channel %q is neither the absolute path of a unix socket nor vsock:CID:PORT: %w", s, vnic.ErrInvalid)
	}
	return Channel{Path: path}, nil
}

// String is what ParseChannel reads.
func (c Channel) String() string {
	if c.Path != "" {
		return c.Path
	}
	return fmt.Sprintf("vsock:%d:%d", c.CID, c.Port)
}

// Dial connects to the channel. That it succeeds says nothing of the agent.
func (c Channel) Dial(ctx context.Context) (net.Conn, error) {
	if c.Path == "" {
		conn, err := vsock.DialContext(ctx, c.CID, c.Port, nil)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", c, err)
		}
		return conn, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Path)
	var op *net.OpError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("connect to %s: %w: run brfused as a user who may write to that socket", c, fs.ErrPermission)
	case errors.As(err, &op):
		return nil, fmt.Errorf("connect to %s: %w", c, op.Err)
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", c, err)
	}
	return conn, nil
}
