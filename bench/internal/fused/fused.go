// Package fused has brfuse give pods their vNICs, by calls to its daemon, and
// takes the time of it.
package fused

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// Fused has a site's daemon attach pods of one guest, which it knows, to one
// network. It is safe for concurrent use until it is closed.
type Fused struct {
	site    *site.Site
	client  brfusev1.BrfuseClient
	conn    *rtnl.Conn // in the daemon's namespace
	bridge  int        // index of the network's bridge
	vm      string
	network string
	pooled  atomic.Bool
}

// New makes the network, of one IPv4 and one IPv6 subnet.
func New(ctx context.Context, s *site.Site, vm, network string, subnets ...netip.Prefix) (*Fused, error) {
	return Open(ctx, s, vm, Network{Name: network, Subnets: subnets})
}

// Network says what network the pods are attached to.
type Network struct {
	Name    string
	Subnets []netip.Prefix // one IPv4, and at most one IPv6
	Bridge  string         // one that exists; default: one that brfuse makes
	MTU     int            // bytes; default: brfuse's
}

func (n Network) message() *brfusev1.Network {
	m := &brfusev1.Network{Name: n.Name, Bridge: n.Bridge, External: n.Bridge != "", Mtu: uint32(n.MTU)}
	for _, s := range n.Subnets {
		m.Subnets = append(m.Subnets, s.String())
	}
	return m
}

// Open makes the network.
func Open(ctx context.Context, s *site.Site, vm string, n Network) (*Fused, error) {
	f := &Fused{site: s, vm: vm, network: n.Name}
	if err := f.setUp(ctx, n.message()); err != nil {
		return nil, errors.Join(f.explain(fmt.Errorf("set up network %s: %w", n.Name, err)), f.Close())
	}
	return f, nil
}

func (f *Fused) setUp(ctx context.Context, n *brfusev1.Network) (err error) {
	if f.client, err = f.site.Client(); err != nil {
		return err
	}
	if n, err = f.client.CreateNetwork(ctx, &brfusev1.CreateNetworkRequest{Network: n}); err != nil {
		return err
	}
	if err := f.site.Net.NS().Do(func() (err error) { f.conn, err = rtnl.Dial(); return err }); err != nil {
		return err
	}
	bridge, err := f.conn.Link(n.GetBridge())
	if err != nil {
		return err
	}
	f.bridge = bridge.Index
	return nil
}

// Close lets go of the namespace. The daemon is the site's.
func (f *Fused) Close() error {
	if f.conn == nil {
		return nil
	}
	return f.conn.Close()
}

// explain adds the end of the daemon's log to an error.
func (f *Fused) explain(err error) error {
	return fmt.Errorf("%w\n--- brfused:\n%s", err, f.site.LogTail())
}

// Step is a part of an attach or detach in the daemon's words.
type Step struct {
	Name string
	Took time.Duration
}

// Attachment is a pod's vNIC.
type Attachment struct {
	Addr  netip.Addr // IPv4
	Slot  string     // "bus/device" in QEMU
	Steps []Step     // of the attach
}

// Attach attaches a pod. It gets those addresses of the network's subnets, or, if
// there are none, such as are free. After an error the pod is not attached.
func (f *Fused) Attach(ctx context.Context, pod string, addrs ...netip.Addr) (Attachment, error) {
	req := &brfusev1.AttachRequest{Vm: f.vm, Pod: pod, Network: f.network}
	for _, a := range addrs {
		req.Addresses = append(req.Addresses, a.String())
	}
	a, err := f.client.Attach(ctx, req)
	if err != nil {
		return Attachment{}, f.explain(fmt.Errorf("attach pod %s: %w", pod, err))
	}
	err = f.checkDevice(a)
	addr, addrErr := address(a)
	if err = errors.Join(err, addrErr); err != nil {
		_, _, undoErr := f.Detach(ctx, pod)
		return Attachment{}, errors.Join(err, undoErr)
	}
	return Attachment{addr, a.GetSlot(), steps(a)}, nil
}

// Detach detaches a pod. The time is that of the call alone.
func (f *Fused) Detach(ctx context.Context, pod string) (took time.Duration, all []Step, err error) {
	start := time.Now()
	res, err := f.client.Detach(ctx, &brfusev1.DetachRequest{Vm: f.vm, Pod: pod})
	took = time.Since(start)
	if err != nil {
		return took, nil, f.explain(fmt.Errorf("detach pod %s: %w", pod, err))
	}
	if n := len(res.GetDetached()); n != 1 {
		return took, nil, fmt.Errorf("detach pod %s: %d vnics went, not one", pod, n)
	}
	a := res.GetDetached()[0]
	if note := a.GetLastError(); note != "" {
		return took, nil, fmt.Errorf("detach pod %s: %s", pod, note)
	}
	return took, steps(a), f.forget(a)
}

// forget has the host's neighbour table forget a pod, so that the next ping to
// this address begins with ARP, as that to any new one does.
func (f *Fused) forget(a *brfusev1.Attachment) error {
	addr, err := address(a)
	if err == nil {
		err = f.conn.Do(rtnl.DelNeighbour(f.bridge, addr).Tolerate(unix.ENOENT))
	}
	if err != nil {
		return fmt.Errorf("forget pod %s: %w", a.GetPod(), err)
	}
	return nil
}

// address returns a pod's IPv4 address.
func address(a *brfusev1.Attachment) (netip.Addr, error) {
	for _, s := range a.GetAddresses() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("address of pod %s: %w", a.GetPod(), err)
		}
		if p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %s has no IPv4 address", a.GetPod())
}

func steps(a *brfusev1.Attachment) []Step {
	var all []Step
	for _, t := range a.GetTimings() {
		all = append(all, Step{t.GetStep(), t.GetDuration().AsDuration()})
	}
	return all
}
