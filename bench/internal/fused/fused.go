// Package fused has brfuse give pods their vNICs, by calls to a daemon of its
// own, and takes the time of it.
package fused

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// AgentPath is where the guest has the agent.
const AgentPath = "/sbin/brfuse-agent"

// Config says what a Fused works with.
type Config struct {
	Net *vmlab.NetNS // the host's side, where the daemon is to run
	Dir string       // an empty folder with a short path, for socket, database and log
	// Brfused is the daemon's program.
	Brfused string
	// Subnets are those of the network: one IPv4 and one IPv6.
	Subnets []netip.Prefix
}

// Fused is a running daemon with one network. It is safe for concurrent
// use until it is closed.
type Fused struct {
	cfg    Config
	daemon *daemon
	client brfusev1.BrfuseClient
	conn   *rtnl.Conn // in the daemon's namespace
	bridge int        // index of the network's bridge
	vm     string
}

const network = "bench"

// Start starts the daemon, and has it make the network and know the guest. It
// returns when the guest's agent is there.
func Start(ctx context.Context, cfg Config, vm *vmlab.VM) (f *Fused, err error) {
	d, err := startDaemon(cfg)
	if err != nil {
		return nil, err
	}
	f = &Fused{cfg: cfg, daemon: d, client: brfusev1.NewBrfuseClient(d.conn), vm: vm.Name()}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not ready within %s", startLimit))
	defer cancel()
	if err := f.setUp(ctx, vm.Ref()); err != nil {
		return nil, errors.Join(fmt.Errorf("set up brfused: %w", f.explain(err)), f.Close())
	}
	return f, nil
}

func (f *Fused) setUp(ctx context.Context, vm vnic.VM) error {
	n := &brfusev1.Network{Name: network}
	for _, s := range f.cfg.Subnets {
		n.Subnets = append(n.Subnets, s.String())
	}
	// The first call waits until the daemon serves.
	n, err := f.client.CreateNetwork(ctx, &brfusev1.CreateNetworkRequest{Network: n}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	err = f.cfg.Net.NS().Do(func() (err error) { f.conn, err = rtnl.Dial(); return err })
	if err != nil {
		return err
	}
	bridge, err := f.conn.Link(n.GetBridge())
	if err != nil {
		return err
	}
	f.bridge = bridge.Index
	if _, err := f.client.AddVM(ctx, &brfusev1.AddVMRequest{Name: vm.Name, Qmp: vm.QMP, Channel: vm.Channel}); err != nil {
		return err
	}
	return f.awaitAgent(ctx)
}

// askAgain is how often the daemon is asked for the agent. No call tells of it.
const askAgain = 20 * time.Millisecond

func (f *Fused) awaitAgent(ctx context.Context) error {
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		res, err := f.client.ListVMs(ctx, &brfusev1.ListVMsRequest{})
		if err != nil {
			return err
		}
		for _, vm := range res.GetVms() {
			if vm.GetState() == "running" && vm.GetAgent() == "connected" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await the guest's agent: %w", context.Cause(ctx))
		}
	}
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

// Attach attaches a pod.
func (f *Fused) Attach(ctx context.Context, pod string) (Attachment, error) {
	a, err := f.client.Attach(ctx, &brfusev1.AttachRequest{Vm: f.vm, Pod: pod, Network: network})
	if err != nil {
		return Attachment{}, f.explain(fmt.Errorf("attach pod %s: %w", pod, err))
	}
	addr, err := address(a)
	return Attachment{addr, a.GetSlot(), steps(a)}, err
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
