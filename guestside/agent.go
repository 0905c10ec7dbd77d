// Package guestside is the half of brfuse that runs in a VM. An [Agent] finds a
// vNIC by its MAC as soon as the hypervisor has plugged it, moves it into a
// pod's network namespace, gives it addresses and routes, and takes it back.
//
// The agent knows vNICs by their permanent MAC, never by name. It follows the
// links of the VM's first namespace by events, so it polls nothing and sees a
// vNIC come back whose pod died. A vNIC for an engine that moves it by itself is
// handed over: it is left in the first namespace, and seen when it comes back
// there. The agent remembers nothing across restarts: whoever
// gives the orders repeats them, and each of them may be repeated.
package guestside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/guestside/internal/standin"
	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Config says how an [Agent] works. Its zero value is usable.
type Config struct {
	// Log takes the agent's messages. Default: none are written.
	Log *slog.Logger
	// OnReturned is called when a pod's namespace died and its vNIC came back to
	// the first namespace, where it is down and named by [vnic.ID.LinkName] by
	// then. It is called from a goroutine of the agent, without locks. Optional.
	OnReturned func(id vnic.ID, mac vnic.MAC)
	// OnHandedBack is called when a vNIC that was handed over, and had left the
	// first namespace, came back to it: its engine is done with it, or died. It is
	// down and named by [vnic.ID.LinkName] by then, whatever the engine left. It is
	// called from a goroutine of the agent, without locks. Optional.
	OnHandedBack func(id vnic.ID, mac vnic.MAC)
	// SearchAfter is how long a vNIC is awaited in the first namespace before it
	// is looked for, once, in all others. Default: 500 ms.
	SearchAfter time.Duration
	// CarrierWait is how long to wait for a vNIC's carrier, which it has at once
	// unless the host's side is down, before it is left unannounced. Default: 2 s.
	CarrierWait time.Duration
	// ReturnWait is how long a release that keeps the vNIC waits for one that is
	// in no namespace, because the kernel is taking its pod's apart. Default: 2 s.
	ReturnWait time.Duration
	// NormalRCU leaves /sys/kernel/rcu_expedited alone. Default: the agent has it on
	// while it moves a vNIC, which spares about a third of the time, at the price of
	// interrupting each of the VM's CPUs a few times.
	NormalRCU bool
}

// Agent moves vNICs between the VM's first namespace and those of pods. It is
// safe for concurrent use; calls for the same vNIC wait for each other.
type Agent struct {
	log         *slog.Logger
	onReturned  func(vnic.ID, vnic.MAC)
	onBack      func(vnic.ID, vnic.MAC)
	searchAfter time.Duration
	carrierWait time.Duration
	returnWait  time.Duration

	standIn string // the kind of virtual device that tests have for vNICs in pods

	home     *netnsx.NS // the first namespace
	conn     *rtnl.Conn // in it
	monitor  *rtnl.Monitor
	links    *links
	locks    keylock.Locks[vnic.MAC]
	searches keylock.Locks[struct{}] // of all namespaces: one at a time
	records  *records
	known    *devices
	started  time.Time
	rcu      *expediter
	pci      pciTree
	tcx      bool // the kernel has such BPF programs

	ctx    context.Context // ends with the agent; for what it does unasked
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of the agent
}

// New returns an agent whose first namespace is that of the calling thread. It
// follows that namespace's links from before New returns. Only tests have
// stand-ins for vNICs, of one kind.
func New(c Config, standIns ...standin.Kind) (*Agent, error) {
	a := &Agent{
		log: c.Log, onReturned: c.OnReturned, onBack: c.OnHandedBack,
		searchAfter: or(c.SearchAfter, 500*time.Millisecond),
		carrierWait: or(c.CarrierWait, 2*time.Second),
		returnWait:  or(c.ReturnWait, 2*time.Second),
		links:       newLinks(), records: newRecords(), known: newDevices(), started: time.Now(), tcx: rtnl.HasTCX(),
	}
	for _, kind := range standIns {
		a.standIn = string(kind)
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.onReturned == nil {
		a.onReturned = func(vnic.ID, vnic.MAC) {}
	}
	if a.onBack == nil {
		a.onBack = func(vnic.ID, vnic.MAC) {}
	}
	a.pci = pciTree{"/sys"}
	a.rcu = newExpediter(a.log, !c.NormalRCU && a.standIn == "")
	if err := a.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("start guest agent: %w", err), a.closeAll())
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	monitor := a.monitor // Close takes it from a
	a.wg.Go(func() { a.follow(monitor) })
	return a, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// open opens what the agent holds in the first namespace and takes in the
// links that are there.
func (a *Agent) open() (err error) {
	if a.home, err = netnsx.Current(); err != nil {
		return err
	}
	if a.conn, err = rtnl.Dial(); err != nil {
		return err
	}
	if a.monitor, err = rtnl.NewMonitor(a.conn); err != nil {
		return err
	}
	u, err := a.monitor.Next()
	a.links.apply(u)
	return err
}

// Close stops the agent and waits for its goroutines. Pods keep their vNICs. It
// is called once, when no other call is under way.
func (a *Agent) Close() error {
	a.cancel()
	err := a.monitor.Close()
	a.monitor = nil
	a.wg.Wait()
	return errors.Join(err, a.closeAll())
}

func (a *Agent) closeAll() error {
	errs := a.rcu.close()
	if a.monitor != nil {
		errs = errors.Join(errs, a.monitor.Close())
	}
	if a.conn != nil {
		errs = errors.Join(errs, a.conn.Close())
	}
	if a.home != nil {
		errs = errors.Join(errs, a.home.Close())
	}
	return errs
}

// retryPause is how long to wait after the links could not be read.
const retryPause = 100 * time.Millisecond

// follow keeps a.links true until the agent is closed.
func (a *Agent) follow(monitor *rtnl.Monitor) {
	for {
		u, err := monitor.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			a.log.Warn("follow links", slog.Any("error", err))
			select {
			case <-time.After(retryPause):
			case <-a.ctx.Done():
				return
			}
			continue
		}
		a.links.apply(u)
		a.known.gone(u)
		a.noticeReturned(u)
		a.noticeHandedOver(u)
	}
}

// openPod opens the namespace of a pod, which must not be the first one.
func (a *Agent) openPod(ref string) (*netnsx.NS, error) {
	ns, err := netnsx.Open(ref)
	if err != nil {
		return nil, err
	}
	if ns.ID() == a.home.ID() {
		return nil, errors.Join(fmt.Errorf("network namespace %q is the vm's own, not a pod's: %w", ref, vnic.ErrInvalid), ns.Close())
	}
	return ns, nil
}

// check returns what is wrong with m, if anything.
func check(m vnic.Move) error {
	if m.MAC.IsZero() {
		return fmt.Errorf("vnic %s has no mac: %w", m.ID, vnic.ErrInvalid)
	}
	if _, err := vnic.ParseID(string(m.ID)); err != nil {
		return err
	}
	return vnic.CheckInterface(m.Interface)
}

// within runs fn inside of ns with a connection there.
func within(ns *netnsx.NS, fn func(c *rtnl.Conn) error) error {
	return ns.Do(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		return errors.Join(fn(c), c.Close())
	})
}
