package port

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const (
	burstTime = 10 // the default burst is what comes in a tenth of a second
	queueTime = 10 // and so much may wait
	minFrames = 10 // frames of the MTU that burst and queue take at least
)

// shapeOf returns how a tap of that MTU sends at a rate. The kernel cuts what is
// larger than the burst into frames.
func shapeOf(r vnic.Rate, mtu int) rtnl.Shape {
	const ethernet = 18 // bytes of a frame beside the MTU
	rate, frame := r.Bits/8, uint64(mtu+ethernet)
	burst := max(rate/burstTime, minFrames*frame)
	if r.Burst != 0 {
		burst = max(r.Burst/8, frame)
	}
	queue := burst + max(rate/queueTime, minFrames*frame)
	return rtnl.Shape{Rate: rate, Burst: uint32(min(burst, math.MaxUint32)), Queue: uint32(min(queue, math.MaxUint32))}
}

// Shape limits what a tap sends to its pod. Without a rate it takes back an
// earlier limit, and leaves alone what others put there. A kernel that can't is a
// [vnic.ErrUnsupported].
func (l *Links) Shape(_ context.Context, tap string, r vnic.Rate, mtu int) error {
	link, err := l.nl.HostLink(tap)
	if err != nil {
		return err
	}
	if r.Bits == 0 {
		return l.conn.Do(rtnl.ClearShape(link))
	}
	return unsupported(l.conn.Do(rtnl.SetShape(link, shapeOf(r, mtu))))
}

func unsupported(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w: this kernel lacks the token bucket filter: load the module sch_tbf (CONFIG_NET_SCH_TBF)", err, vnic.ErrUnsupported)
	}
	return err
}

// ProbeShape returns a [vnic.ErrUnsupported] when the kernel can't limit what a
// link sends. It is about the calling thread's network namespace, and changes
// nothing.
func ProbeShape() error {
	h, err := rtnl.New()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.HostLink("lo")
	if err != nil {
		return err
	}
	conn, err := rtnl.Dial()
	if err != nil {
		return err
	}
	return errors.Join(unsupported(conn.Do(rtnl.ProbeShape(link))), conn.Close())
}

// Forward makes the host forward the families of addresses, as it does for the
// networks that it serves.
func (l *Links) Forward(ctx context.Context, addresses []netip.Addr) error {
	return l.Inside(ctx, func() error { return l.forward(addresses) })
}

// Addresses returns the host's own addresses.
func (l *Links) Addresses() ([]netip.Addr, error) {
	var found []rtnl.Addr
	if err := l.conn.Do(rtnl.GetAddrs(&found)); err != nil {
		return nil, err
	}
	addresses := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		addresses = append(addresses, a.Prefix.Addr())
	}
	return addresses, nil
}
