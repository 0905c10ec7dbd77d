package floor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/bench/internal/floor/order"
)

// spareLimit bounds how long the guest may take to see the NIC that waits.
const spareLimit = 10 * time.Second

// plugSpare plugs the NIC that waits, and returns when the guest has it.
func (f *Floor) plugSpare(ctx context.Context) error {
	at, err := parseSlot(f.cfg.Spare)
	if err != nil {
		return err
	}
	if err := f.prepareHost(ctx, waiting, f.spare); err != nil {
		return err
	}
	if err := f.plug(ctx, waiting, f.spare, at); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, spareLimit, errors.New("the guest did not see the NIC that is to wait"))
	defer cancel()
	return f.PrepareMove(ctx)
}

// PrepareMove has the guest open all that it needs to move the NIC that waits.
// Move comes next.
func (f *Floor) PrepareMove(ctx context.Context) error {
	o := f.next(order.Hold, f.spare)
	o.Gateways = []netip.Addr{f.gw4, f.gw6}
	if _, err := f.order(ctx, o); err != nil {
		return fmt.Errorf("prepare the guest: %w", err)
	}
	return nil
}

// Move has the guest move the NIC that waits to the pod, and returns its address
// when the guest has reported that it is there. MoveBack comes next.
func (f *Floor) Move(ctx context.Context) (netip.Addr, Times, error) {
	rep, err := f.order(ctx, order.Order{Verb: order.Move})
	if err != nil {
		return f.addr4, Times{}, fmt.Errorf("move the NIC: %w", err)
	}
	return f.addr4, Times{rep.Move, rep.Address}, nil
}

// MoveBack has the guest move the NIC to its first namespace. It returns the time
// from the order until the guest's report.
func (f *Floor) MoveBack(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := f.order(ctx, order.Order{Verb: order.Home})
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("move the NIC back: %w", err)
	}
	return took, f.forget()
}
