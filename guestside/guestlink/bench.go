package guestlink

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/netload"
)

// BenchOrder asks a guest for a place to measure in.
type BenchOrder struct {
	ID       string
	Topology string // "native", "nat" or "fused"
	// Own is the guest's own address that NAT publishes by; Peer is the other guest's,
	// by the NIC to which NAT leaves when Own is zero.
	Own, Peer netip.Addr
}

// BenchPlace is a place to measure in.
type BenchPlace struct {
	Netns     string // of the pod; empty: the guest's first namespace
	Port      uint16
	Addresses []netip.Addr // IPv4, of the guest's first namespace
}

// BenchCost is what a guest says that it spent while it was measured.
type BenchCost struct {
	Elapsed                    time.Duration
	User, System, Softirq, IRQ time.Duration // of all CPUs
	Retransmits                uint64
	Drops                      map[string]uint64 // by the device's name
}

// BenchResult is what a guest says that it measured.
type BenchResult struct {
	Elapsed              time.Duration
	Sent, Received, Lost uint64             // messages
	Bytes                uint64             // of payload received
	Latency              *netload.Histogram // nanoseconds; nil: none
	Client, Server       BenchCost
}

// Limits of what is believed of a guest's measurements.
const (
	benchLimit      = 30 * time.Second // of a call that does not measure
	benchSlack      = 30 * time.Second // beside what a load takes
	maxBenchAddrs   = 16
	maxBenchDrops   = 64
	maxBenchTime    = time.Hour
	maxBenchCPUTime = 1000 * maxBenchTime
	maxBenchCount   = 1 << 48
	maxHistogram    = 64 << 10 // bytes, encoded
	maxBenchDevice  = 15       // bytes of a device's name
)

// BenchOpen makes a place to measure in: [vnic.ErrInUse] while there is another
// one, [vnic.ErrUnsupported] when the agent was told not to.
func (l *Links) BenchOpen(ctx context.Context, vm string, o BenchOrder) (BenchPlace, error) {
	var p BenchPlace
	err := l.call(ctx, vm, "open bench", benchLimit, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.BenchOpen(ctx, &agentv1.BenchOpenRequest{Id: o.ID, Topology: o.Topology, Own: addrText(o.Own), Peer: addrText(o.Peer)})
		if err != nil {
			return err
		}
		p, err = toBenchPlace(resp)
		return err
	})
	return p, err
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// BenchServe starts the load's server in a place, and returns its port.
func (l *Links) BenchServe(ctx context.Context, vm, id string) (uint16, error) {
	var port uint16
	err := l.call(ctx, vm, "serve bench", benchLimit, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.BenchServe(ctx, &agentv1.BenchServeRequest{Id: id})
		if err != nil {
			return err
		}
		port, err = toPort(resp.GetPort())
		return err
	})
	return port, err
}

// BenchReach returns which of some addresses take connections from a place.
func (l *Links) BenchReach(ctx context.Context, vm, id string, to []netip.Addr, port uint16) ([]netip.Addr, error) {
	req := &agentv1.BenchReachRequest{Id: id, Port: uint32(port)}
	for _, a := range to {
		req.Addresses = append(req.Addresses, a.String())
	}
	var reached []netip.Addr
	err := l.call(ctx, vm, "reach", benchLimit, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.BenchReach(ctx, req)
		if err != nil {
			return err
		}
		reached, err = toBenchAddrs(resp.GetReached())
		return err
	})
	return reached, err
}

// BenchRun loads a server from a place.
func (l *Links) BenchRun(ctx context.Context, vm, id string, to netip.AddrPort, spec netload.Spec) (BenchResult, error) {
	var r BenchResult
	limit := spec.Duration + spec.WarmUp + benchSlack
	err := l.call(ctx, vm, "measure", limit, func(ctx context.Context, a agentv1.AgentService) error {
		resp, err := a.BenchRun(ctx, &agentv1.BenchRunRequest{
			Id: id, Address: to.Addr().String(), Port: uint32(to.Port()),
			Kind: string(spec.Kind), Size: toUint32(spec.Size), Flows: toUint32(spec.Flows), Reverse: spec.Reverse,
			DurationNanos: spec.Duration.Nanoseconds(), WarmUpNanos: spec.WarmUp.Nanoseconds(),
		})
		if err != nil {
			return err
		}
		r, err = toBenchResult(resp)
		return err
	})
	return r, err
}

// BenchClose removes a place and what runs in it. It succeeds when there is none.
func (l *Links) BenchClose(ctx context.Context, vm, id string) error {
	return l.call(ctx, vm, "close bench", benchLimit, func(ctx context.Context, a agentv1.AgentService) error {
		_, err := a.BenchClose(ctx, &agentv1.BenchCloseRequest{Id: id})
		return err
	})
}

func toBenchPlace(m *agentv1.BenchOpenResponse) (p BenchPlace, err error) {
	if err := checkText(m.GetNetns(), maxText); err != nil {
		return p, err
	}
	if p.Port, err = toPort(m.GetPort()); err != nil {
		return p, err
	}
	p.Netns = m.GetNetns()
	p.Addresses, err = toBenchAddrs(m.GetAddresses())
	return p, err
}

func toPort(n uint32) (uint16, error) {
	if n == 0 || n > 65535 {
		return 0, fmt.Errorf("%w: port %d", errAnswer, n)
	}
	return uint16(n), nil
}

func toBenchAddrs(list []string) ([]netip.Addr, error) {
	if len(list) > maxBenchAddrs {
		return nil, fmt.Errorf("%w: %d addresses, at most %d make sense", errAnswer, len(list), maxBenchAddrs)
	}
	var addrs []netip.Addr
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, malformed(err)
		}
		if !a.Is4() || !a.IsGlobalUnicast() {
			return nil, fmt.Errorf("%w: address %s", errAnswer, a)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func toBenchResult(m *agentv1.BenchRunResponse) (r BenchResult, err error) {
	r = BenchResult{
		Elapsed: time.Duration(m.GetElapsedNanos()), Sent: m.GetSent(), Received: m.GetReceived(), Lost: m.GetLost(), Bytes: m.GetBytes(),
	}
	if r.Elapsed <= 0 || r.Elapsed > maxBenchTime {
		return BenchResult{}, fmt.Errorf("%w: measured for %s", errAnswer, r.Elapsed)
	}
	if max(r.Sent, r.Received, r.Lost, r.Bytes) > maxBenchCount || r.Lost > r.Sent {
		return BenchResult{}, fmt.Errorf("%w: %d messages sent, %d received, %d lost, %d bytes", errAnswer, r.Sent, r.Received, r.Lost, r.Bytes)
	}
	if r.Latency, err = toHistogram(m.GetLatency()); err != nil {
		return BenchResult{}, err
	}
	if r.Client, err = toBenchCost(m.GetClient()); err != nil {
		return BenchResult{}, err
	}
	r.Server, err = toBenchCost(m.GetServer())
	return r, err
}

// toHistogram reads a histogram; an empty text is none.
func toHistogram(text string) (*netload.Histogram, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // there is none, and nothing is wrong
	}
	if len(text) > maxHistogram {
		return nil, fmt.Errorf("%w: histogram of %d bytes, at most %d make sense", errAnswer, len(text), maxHistogram)
	}
	if err := checkGeometry(text); err != nil {
		return nil, fmt.Errorf("%w: histogram: %w", errAnswer, err)
	}
	var h netload.Histogram
	if err := h.UnmarshalText([]byte(text)); err != nil {
		return nil, fmt.Errorf("%w: histogram: %w", errAnswer, err)
	}
	if h.Count() > maxBenchCount {
		return nil, fmt.Errorf("%w: histogram of %d values", errAnswer, h.Count())
	}
	return &h, nil
}

// A histogram is a header of 8 bytes and a compressed part that begins with one of 40.
const (
	outerHeader = 8
	innerHeader = 40
	maxDigits   = 3
)

// checkGeometry refuses a histogram that would take more memory than those of
// package netload do, before it is decoded.
func checkGeometry(text string) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	if len(raw) < outerHeader {
		return fmt.Errorf("%d bytes: %w", len(raw), io.ErrUnexpectedEOF)
	}
	z, err := zlib.NewReader(bytes.NewReader(raw[outerHeader:]))
	if err != nil {
		return err
	}
	defer z.Close()
	var head [innerHeader]byte
	if _, err := io.ReadFull(z, head[:]); err != nil {
		return err
	}
	digits, most := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint64(head[24:])
	if digits > maxDigits || most > uint64(maxBenchTime) {
		return fmt.Errorf("%d digits up to %d", digits, most)
	}
	return nil
}

func toBenchCost(m *agentv1.BenchCost) (c BenchCost, err error) {
	c = BenchCost{
		Elapsed: time.Duration(m.GetElapsedNanos()), User: time.Duration(m.GetUserNanos()), System: time.Duration(m.GetSystemNanos()),
		Softirq: time.Duration(m.GetSoftirqNanos()), IRQ: time.Duration(m.GetIrqNanos()), Retransmits: m.GetRetransmits(),
	}
	if c.Elapsed < 0 || c.Elapsed > maxBenchTime || c.Retransmits > maxBenchCount || len(m.GetDrops()) > maxBenchDrops {
		return BenchCost{}, fmt.Errorf("%w: cost within %s of %d retransmits and %d devices", errAnswer, c.Elapsed, c.Retransmits, len(m.GetDrops()))
	}
	for _, d := range []time.Duration{c.User, c.System, c.Softirq, c.IRQ} {
		if d < 0 || d > maxBenchCPUTime {
			return BenchCost{}, fmt.Errorf("%w: %s of CPU within %s", errAnswer, d, c.Elapsed)
		}
	}
	for name, n := range m.GetDrops() {
		if err := checkText(name, maxBenchDevice); err != nil {
			return BenchCost{}, err
		}
		if n > maxBenchCount {
			return BenchCost{}, fmt.Errorf("%w: %d drops of %s", errAnswer, n, name)
		}
	}
	c.Drops = m.GetDrops()
	return c, nil
}
