package qmpvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Status is how far a migration has come, at the QEMU that the guest leaves.
type Status struct {
	Status   string `json:"status"`     // QEMU's MigrationStatus; empty before the first one
	Error    string `json:"error-desc"` // why it failed
	Total    int64  `json:"total-time"` // ms
	Downtime int64  `json:"downtime"`   // ms, from the guest's stop to the last of its state
}

// Ends of a migration.
const (
	migrationDone      = "completed"
	migrationFailed    = "failed"
	migrationCancelled = "cancelled"
)

func (s Status) ended() bool {
	return s.Status == migrationDone || s.Status == migrationFailed || s.Status == migrationCancelled
}

// never tells that no migration was begun.
func (s Status) never() bool { return s.Status == "" || s.Status == "none" }

// Completed tells that the guest runs at the other QEMU.
func (s Status) Completed() bool { return s.Status == migrationDone }

// Migration returns how far a migration from this QEMU has come.
func (s *Seat) Migration(ctx context.Context) (Status, error) {
	var st Status
	err := s.do(ctx, "query-migrate", nil, &st)
	return st, err
}

const (
	// streamName is the descriptor of a migration's stream in both QEMUs. No file of
	// it is left behind, and no other process can reach it.
	streamName = "brfuse-migration"
	// bandwidth is as good as no limit: the stream stays on this machine.
	bandwidth = 64 << 30 // bytes a second
	// cancelLimit bounds how long a migration may take to end once it is cancelled.
	cancelLimit = 20 * time.Second
	// resumeLimit bounds how long the guest may take to go on after one that failed.
	resumeLimit = 20 * time.Second
)

// Prepare gets both QEMUs ready for MoveTo.
func (s *Seat) Prepare(ctx context.Context, to *Seat) error {
	capabilities := args{"capabilities": []args{
		{"capability": "events", "state": true},
		{"capability": "return-path", "state": true}, // the guest runs there before it is over here
	}}
	for _, q := range []*Seat{to, s} {
		if err := q.do(ctx, "migrate-set-capabilities", capabilities, nil); err != nil {
			return fmt.Errorf("prepare migration: %w", err)
		}
	}
	if err := s.do(ctx, "migrate-set-parameters", args{"max-bandwidth": bandwidth}, nil); err != nil {
		return fmt.Errorf("prepare migration: %w", err)
	}
	return nil
}

// MoveTo moves the guest to another QEMU, which waits for it, and returns once it
// runs there. When that fails, or ctx ends, the guest runs here as before, and the
// other QEMU is of no more use; unless the connection was lost: then the error is
// [vnic.ErrVMGone], and the guest is wherever it is.
func (s *Seat) MoveTo(ctx context.Context, to *Seat) (Status, error) {
	events := s.vm.conn.Subscribe()
	defer events.Close()
	if err := s.begin(ctx, to); err != nil {
		return Status{}, fmt.Errorf("begin migration: %w", err)
	}
	st, err := s.awaitEnd(ctx, events)
	if err != nil && s.vm.conn.Err() == nil {
		var cerr error
		if st, cerr = s.Cancel(ctx); cerr != nil {
			return st, errors.Join(err, cerr)
		}
	}
	switch {
	case st.Completed():
		return st, nil
	case err != nil:
		return st, fmt.Errorf("migration: %w", err)
	}
	return st, fmt.Errorf("migration %s: %s: see the log of the qemu that waited", st.Status, orNone(st.Error))
}

// begin starts the migration.
func (s *Seat) begin(ctx context.Context, to *Seat) error {
	here, there, err := stream()
	if err != nil {
		return err
	}
	defer here.Close()
	defer there.Close()
	if err := to.take(ctx, there, "migrate-incoming"); err != nil {
		return err
	}
	return s.take(ctx, here, "migrate")
}

// take has QEMU use one end of the stream for a command.
func (s *Seat) take(ctx context.Context, end *os.File, cmd string) error {
	pass := qmp.Command{Execute: "getfd", Args: args{"fdname": streamName}}
	if _, err := s.vm.conn.Do(ctx, pass, end); err != nil {
		return err
	}
	return s.do(ctx, cmd, args{"uri": "fd:" + streamName}, nil)
}

// stream returns both ends of a unix socket.
func stream() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make stream: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "migration"), os.NewFile(uintptr(fds[1]), "migration"), nil
}

// awaitEnd returns how the migration ended. After one that didn't complete, the guest
// goes on by then.
func (s *Seat) awaitEnd(ctx context.Context, events *Subscription) (Status, error) {
	for {
		st, err := s.Migration(ctx)
		if err == nil && st.ended() && !st.Completed() {
			return st, s.awaitStay(ctx, events)
		}
		if err != nil || st.ended() {
			return st, err
		}
		if err := awaitEvent(ctx, events, "MIGRATION"); err != nil {
			return st, s.orLost(fmt.Errorf("await the end of the migration: %w", err))
		}
	}
}

// awaitStay waits until the guest goes on after a migration that didn't complete: QEMU
// tells of that end first, and starts the guest's processors a moment later
// (migration_iteration_finish in migration/migration.c).
func (s *Seat) awaitStay(ctx context.Context, events *Subscription) error {
	ctx, cancel := context.WithTimeout(ctx, resumeLimit)
	defer cancel()
	for {
		state, err := s.State(ctx)
		if err != nil || state != StateLeaving {
			return err
		}
		if err := awaitEvent(ctx, events, "RESUME"); err != nil {
			return s.orLost(fmt.Errorf("await that the guest goes on after a migration that did not complete: %w", err))
		}
	}
}

// orLost returns why the connection ended if it has, and err otherwise.
func (s *Seat) orLost(err error) error {
	if lost := s.vm.conn.Err(); lost != nil {
		return lost
	}
	return err
}

// errNoEvents tells that a subscription has ended.
var errNoEvents = errors.New("the connection ended")

// awaitEvent waits for QEMU's next event of a name.
func awaitEvent(ctx context.Context, events *Subscription, name string) error {
	for {
		select {
		case ev, ok := <-events.C():
			if !ok {
				return errNoEvents
			}
			if ev.Event == name {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Cancel ends a migration that is under way, whatever became of ctx, and returns how
// it ended: it may have completed by then. Without one, it returns how the last ended.
func (s *Seat) Cancel(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelLimit)
	defer cancel()
	events := s.vm.conn.Subscribe()
	defer events.Close()
	st, err := s.Migration(ctx)
	if err != nil || st.never() {
		return st, err
	}
	if !st.ended() {
		if err := s.do(ctx, "migrate_cancel", nil, nil); err != nil {
			return st, fmt.Errorf("cancel migration: %w", err)
		}
	}
	st, err = s.awaitEnd(ctx, events)
	if err != nil && !errors.Is(err, vnic.ErrVMGone) {
		err = fmt.Errorf("cancel migration: %w", err)
	}
	return st, err
}
