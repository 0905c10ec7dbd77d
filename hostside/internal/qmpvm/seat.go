package qmpvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Seat is a QEMU process as a migration sees it: the one that a guest leaves, or the
// one that waits for it. It is safe for concurrent use.
type Seat struct {
	vm  *VM // with a connection and no more, or one that is used beside
	own bool
}

// Run states of a QEMU that a migration tells apart.
const (
	StateRunning   = "running"
	StatePaused    = "paused"
	StateWaiting   = "inmigrate"      // for a guest to come
	StateLeft      = "postmigrate"    // its guest has moved
	StateLeaving   = "finish-migrate" // its guest is stopped, and about to have moved
	StatePrelaunch = "prelaunch"
)

// DialSeat connects to a QMP socket; errors are those of [DialConn]. Close it.
func DialSeat(ctx context.Context, vm vnic.VM, log *slog.Logger) (*Seat, error) {
	conn, err := DialConn(ctx, vm.QMP, log)
	if err != nil {
		return nil, err
	}
	return &Seat{vm: &VM{name: vm.Name, conn: conn, log: log.With("vm", vm.Name)}, own: true}, nil
}

// Seat returns the QEMU of v, over the connection of v.
func (v *VM) Seat() *Seat { return &Seat{vm: v} }

// Close ends the connection, if it is the Seat's own.
func (s *Seat) Close() error {
	if !s.own {
		return nil
	}
	return s.vm.conn.Close()
}

// PID returns the id of the process that made the QMP socket: QEMU's own, or that of
// who started it.
func (s *Seat) PID() (int, error) {
	uc, ok := s.vm.conn.nc.(*net.UnixConn)
	if !ok {
		return 0, errNoDescriptors
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(cerr, err); err != nil {
		return 0, fmt.Errorf("process of qmp socket: %w", err)
	}
	return int(cred.Pid), nil
}

// do runs a command and decodes its answer into v, unless that is nil.
func (s *Seat) do(ctx context.Context, cmd string, a args, v any) error {
	answer, err := s.vm.conn.Do(ctx, qmp.Command{Execute: cmd, Args: a})
	if err != nil || v == nil {
		return err
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("%s: decode answer: %w", cmd, err)
	}
	return nil
}

// State returns QEMU's run state, one of the constants above or another.
func (s *Seat) State(ctx context.Context) (string, error) {
	var st struct {
		Status string `json:"status"`
	}
	err := s.do(ctx, "query-status", nil, &st)
	return st.Status, err
}

// Resume has a guest that came and is paused go on.
func (s *Seat) Resume(ctx context.Context) error { return s.do(ctx, "cont", nil, nil) }

// Announce has QEMU tell the neighbours of all its vNICs where they are now, and
// the guest do so too, a few times within the next second.
func (s *Seat) Announce(ctx context.Context) error {
	return s.do(ctx, "announce-self", args{"initial": 50, "max": 550, "rounds": 5, "step": 100}, nil)
}

// Quit ends QEMU, with its guest, and returns when it has ended.
func (s *Seat) Quit(ctx context.Context) error {
	if err := s.do(ctx, "quit", nil, nil); err != nil && !errors.Is(err, vnic.ErrVMGone) {
		return err
	}
	select {
	case <-s.vm.conn.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("await the end of qemu after quit: %w", context.Cause(ctx))
	}
}
