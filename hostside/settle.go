package hostside

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm"
	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/vnic"
)

// comingLimit bounds the wait for taps that go with their hypervisor process.
const comingLimit = 5 * time.Second

// SettleMigration ends a migration, whatever became of it, and may be repeated, also
// by a later process. It cancels one that is under way, asks both processes where the
// guest is, and ends the other one. When the guest has moved, its vNICs are wired, and
// the VM is to be registered with the sockets of its new process; else it is where it
// was, or gone with the process that it was in, and nothing is left of the other. The
// error tells that nobody knows yet, since a process can't be asked.
//
// The VM must not be registered.
func (h *Host) SettleMigration(ctx context.Context, m vnic.Migration) (moved bool, err error) {
	unlock, err := h.lockAll(ctx, m.VNICs)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := h.RemoveVM(ctx, m.From.Name); err != nil && !errors.Is(err, vnic.ErrUnknownVM) {
		return false, err
	}
	from, err := h.seat(ctx, m.From)
	if err != nil {
		return false, err
	}
	defer from.close()
	if err := from.end(ctx); err != nil {
		return false, err
	}
	to, err := h.seat(ctx, m.To)
	if err != nil && !from.keeps() {
		return false, err
	}
	if err != nil { // the guest is not there, whatever it is that doesn't answer
		h.log.Warn("the qemu that a vm was to move to can't be asked, end it by hand", "vm", m.From.Name, "qmp", m.To.QMP, "error", err)
		to = &seat{}
	}
	defer to.close()
	if err := h.own(ctx, to, m); err != nil {
		return false, err
	}
	if moved, err = whereIs(ctx, from, to); err != nil {
		return moved, err
	}
	defer h.setMoving(m.From.Name, false)
	h.log.Info("migration is settled", "vm", m.From.Name, "moved", moved, "source", from.state, "destination", to.state)
	if moved {
		err = h.finish(ctx, from, to, m)
	} else {
		err = h.rollBack(ctx, from, to, m)
	}
	if err != nil { // the VM is where it is: a reconcile puts its vNICs right
		h.log.Error("a migration left something to do", "vm", m.From.Name, "moved", moved, "source", m.From.QMP, "destination", m.To.QMP, "error", err)
	}
	return moved, nil
}

// seat is one of a migration's processes, nil when that has ended.
type seat struct {
	*qmpvm.Seat
	state string // empty when it has ended
	left  bool   // its guest has moved away
}

// keeps tells that the guest is in that process.
func (s *seat) keeps() bool { return s.state != "" && !s.left }

// end sees to it that no migration of the guest is under way, and whether it has left.
func (s *seat) end(ctx context.Context) error {
	if s.Seat == nil {
		return nil
	}
	st, err := s.Cancel(ctx)
	if err != nil && !errors.Is(err, vnic.ErrVMGone) {
		return err
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	// QEMU's run state comes a moment after the end of the migration.
	s.left = s.state == qmpvm.StateLeft || s.state == qmpvm.StateLeaving && st.Completed()
	return nil
}

func (s *seat) close() {
	if s.Seat != nil {
		_ = s.Close()
	}
}

func (h *Host) seat(ctx context.Context, vm vnic.VM) (*seat, error) {
	q, err := qmpvm.DialSeat(ctx, vm, h.log)
	switch {
	case isGone(err) || errors.Is(err, vnic.ErrVMGone): // the latter: it ended while it was asked
		return &seat{}, nil
	case err != nil:
		return nil, err
	}
	s := &seat{Seat: q}
	if err := s.look(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// look asks for the state.
func (s *seat) look(ctx context.Context) (err error) {
	if s.Seat == nil {
		return nil
	}
	s.state, err = s.State(ctx)
	if errors.Is(err, vnic.ErrVMGone) {
		s.close()
		s.Seat, s.state = nil, ""
		return nil
	}
	return err
}

// own forgets a process that has taken the place of the one that waited: it runs
// without the VM's vNICs.
func (h *Host) own(ctx context.Context, to *seat, m vnic.Migration) error {
	if to.Seat == nil || to.state == qmpvm.StateWaiting || len(m.VNICs) == 0 {
		return nil
	}
	devices, err := to.Devices(ctx)
	if err != nil && !errors.Is(err, vnic.ErrVMGone) {
		return err
	}
	has := func(p vnic.Plug) bool { _, ok := devices[p.ID]; return ok }
	if !slices.ContainsFunc(m.VNICs, has) {
		h.log.Warn("the qemu that a vm was to move to is another one by now", "vm", m.From.Name, "qmp", m.To.QMP, "state", to.state)
		to.close()
		to.Seat, to.state = nil, ""
	}
	return nil
}

// whereIs tells whether the guest has moved.
func whereIs(ctx context.Context, from, to *seat) (moved bool, err error) {
	if from.keeps() {
		return false, nil // it goes on only when the other one has failed
	}
	if err := to.look(ctx); err != nil {
		return false, err
	}
	if to.state == qmpvm.StatePaused || to.state == qmpvm.StatePrelaunch {
		return true, to.Resume(ctx) // it was started with -S
	}
	return to.state != "" && to.state != qmpvm.StateWaiting, nil
}

// finish wires the vNICs of a VM that has moved, and ends the process it was in.
func (h *Host) finish(ctx context.Context, from, to *seat, m vnic.Migration) error {
	err := h.arrive(ctx, to.Seat, m.VNICs)
	if err := failpoint.Hit("migrate.arrived"); err != nil {
		return err
	}
	if from.Seat != nil {
		err = errors.Join(err, from.Quit(ctx))
	}
	return err
}

// rollBack ends the process that the guest didn't move to, with the taps it has. A
// process that the guest left for one that is gone has nothing to run any more.
func (h *Host) rollBack(ctx context.Context, from, to *seat, m vnic.Migration) error {
	var errs []error
	if to.Seat != nil {
		errs = append(errs, to.Quit(ctx))
	}
	if from.left {
		errs = append(errs, from.Quit(ctx))
	}
	coming, err := h.links.Coming(ctx, m.From.Name)
	errs = append(errs, err)
	for id := range coming {
		wait, cancel := context.WithTimeout(ctx, comingLimit)
		if h.links.AwaitComingGone(wait, id) != nil {
			errs = append(errs, h.links.DeleteComing(ctx, id)) // somebody holds it who doesn't end
		}
		cancel()
	}
	return errors.Join(errs...)
}

// ComingTaps returns the vNICs that have a tap for their VM's next process, with the
// names of the VMs. Without a migration under way, a tap of a VM is a leftover.
func (h *Host) ComingTaps(ctx context.Context) (map[vnic.ID]string, error) {
	return h.links.Coming(ctx, "")
}

// RemoveComingTap removes such a tap. One that is gone is no error.
func (h *Host) RemoveComingTap(ctx context.Context, id vnic.ID) error {
	return h.links.DeleteComing(ctx, id)
}
