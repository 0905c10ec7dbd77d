package guestside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/failpoint"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// MoveTimes tells how long the steps of a move took.
type MoveTimes struct {
	Appear time.Duration // from the call until the vNIC was there
	Move   time.Duration // from then until it was in the pod
	// Configure is how long it took from then; of Attach only.
	Configure time.Duration
}

// Prepare checks that a pod can take a vNIC: its namespace exists
// ([vnic.ErrUnknownPod]) and the interface name is free ([vnic.ErrNameTaken]) or
// that vNIC's already. For a handover it is the name in the first namespace that
// has to be free.
func (a *Agent) Prepare(ctx context.Context, m vnic.Move) (err error) {
	release, err := a.begin(ctx, m)
	if err != nil {
		return err
	}
	defer release()
	if m.Handover {
		return a.prepareHandover(m)
	}
	pod, err := a.openPod(m.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()

	var all []rtnl.Link
	if err := within(pod, func(c *rtnl.Conn) error { return c.Do(rtnl.GetLinks(&all)) }); err != nil {
		return fmt.Errorf("look into pod %s: %w", m.Netns, err)
	}
	if err := nameFree(all, m); err != nil {
		return err
	}
	if _, ok := rtnl.FindMAC(all, m.MAC); !ok {
		a.records.put(record{id: m.ID, mac: m.MAC, netns: m.Netns})
	}
	return nil
}

// begin checks an order and waits for others that are about the same vNIC.
func (a *Agent) begin(ctx context.Context, m vnic.Move) (release func(), err error) {
	if err := check(m); err != nil {
		return nil, err
	}
	release, err = a.locks.Lock(ctx, m.MAC)
	if err != nil {
		return nil, fmt.Errorf("await another call for vnic %s: %w", m.MAC, err)
	}
	return release, nil
}

// nameFree returns a [vnic.ErrNameTaken] when one of a pod's links has the
// wanted name and isn't the vNIC.
func nameFree(all []rtnl.Link, m vnic.Move) error {
	for _, l := range all {
		if (l.Name == m.Interface || slices.Contains(l.AltNames, m.Interface)) && !l.HasMAC(m.MAC) {
			return fmt.Errorf("pod %s has an interface %s with mac %s: %w; choose another name",
				m.Netns, m.Interface, l.MAC, vnic.ErrNameTaken)
		}
	}
	return nil
}

// Move awaits a vNIC by its MAC until ctx ends, which is a [vnic.ErrNICMissing],
// and moves it into the pod under its new name and with its MTU, down. When it
// fails, the vNIC is where it was before. It returns at once when the vNIC is
// in the pod already.
//
// A vNIC that is to be handed over ([vnic.Move.Handover]) is left in the first
// namespace instead, down, without addresses, with its MTU and named by
// [vnic.ID.LinkName]; it is put right there when it is otherwise. When its engine
// has it already, in whatever namespace, it is left alone, which is a success.
func (a *Agent) Move(ctx context.Context, m vnic.Move) (vnic.NIC, MoveTimes, error) {
	return a.move(ctx, m, nil)
}

// Attach is [Agent.Move] and then [Agent.Configure], in one visit to the pod's
// namespace. When the second fails, the vNIC stays in the pod: release it.
func (a *Agent) Attach(ctx context.Context, m vnic.Move) (vnic.NIC, MoveTimes, error) {
	return a.move(ctx, m, func(c *rtnl.Conn, l rtnl.Link) (vnic.NIC, error) { return a.configure(ctx, c, m, l) })
}

// visit is what remains to be done in the pod's namespace. It is told the link if
// it has just come there, and so has no addresses.
type visit func(c *rtnl.Conn, arrived rtnl.Link) (vnic.NIC, error)

// move has a function, if there is one, do what remains in the pod's namespace.
func (a *Agent) move(ctx context.Context, m vnic.Move, then visit) (nic vnic.NIC, times MoveTimes, err error) {
	release, err := a.begin(ctx, m)
	if err != nil {
		return nic, times, err
	}
	defer release()
	if k, _ := a.known.get(m.MAC); k.spoilt != nil {
		return nic, times, fmt.Errorf("move vnic %s: %w", m.MAC, k.spoilt)
	}
	if m.Handover {
		return a.handOver(ctx, m)
	}
	start := time.Now()
	for {
		at, err := a.find(ctx, m)
		if err != nil {
			return nic, times, err
		}
		times.Appear = time.Since(start)
		moved := time.Now()
		nic, err = a.moveFrom(at, m, func(c *rtnl.Conn, l rtnl.Link) (vnic.NIC, error) {
			times.Move, moved = time.Since(moved), time.Now()
			if then == nil {
				return vnic.NIC{}, nil
			}
			defer func() { times.Configure = time.Since(moved) }()
			return then(c, l)
		})
		if !errors.Is(err, errLeft) {
			return nic, times, err
		}
		a.links.forget(at.link.Index, m.MAC) // and look for it again
	}
}

// errLeft is returned when a vNIC is no longer where it was found.
var errLeft = errors.New("vnic left")

// moveFrom moves a vNIC from where it was found into the pod, and calls then
// there, which may know more of the vNIC.
func (a *Agent) moveFrom(at place, m vnic.Move, then visit) (nic vnic.NIC, err error) {
	defer func() { err = errors.Join(err, at.close()) }()
	pod, err := a.openPod(m.Netns)
	if err != nil {
		return nic, err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	if err := failpoint.Hit("guest.found"); err != nil {
		return nic, err
	}
	defer a.rcu.begin()()
	a.known.use(m.MAC)
	var r record
	transferred := at.ns.ID() != pod.ID()
	switch {
	case transferred:
		err = a.transfer(at, pod, m)
		r.mtu = at.link.MTU
	case at.link.Name != m.Interface:
		err = a.rename(at, m)
	}
	if err != nil {
		return nic, err
	}
	err = within(pod, func(c *rtnl.Conn) error {
		var l rtnl.Link
		if nic, l, err = a.inspect(c, m); err != nil {
			return fmt.Errorf("look for vnic %s in pod %s: %w", m.MAC, m.Netns, err)
		}
		if !transferred {
			l = rtnl.Link{}
		}
		a.noteMoved(at, m, nic, r)
		if err := failpoint.Hit("guest.moved"); err != nil {
			return err
		}
		more, err := then(c, l)
		if more.ID != "" {
			nic = more
		}
		return err
	})
	return nic, err
}

// noteMoved takes down that a vNIC is in its pod. r has what is known of it from
// before.
func (a *Agent) noteMoved(at place, m vnic.Move, nic vnic.NIC, r record) {
	if old, ok := a.records.get(m.MAC); ok && old.inPod {
		r.mtu = old.mtu
	}
	r.id, r.mac, r.netns, r.inPod, r.pci, r.driver = m.ID, m.MAC, m.Netns, true, nic.PCI, nic.Driver
	a.records.put(r)
	if at.ns == a.home {
		a.links.forget(at.link.Index, m.MAC)
	}
	a.log.Info("vnic moved", slog.String("id", string(m.ID)), slog.String("netns", m.Netns), slog.String("interface", m.Interface))
}

// inspect looks a vNIC up in the pod by its new name.
func (a *Agent) inspect(c *rtnl.Conn, m vnic.Move) (nic vnic.NIC, l rtnl.Link, err error) {
	if l, err = c.Link(m.Interface); err != nil {
		return nic, l, err
	}
	if !l.HasMAC(m.MAC) {
		return nic, l, fmt.Errorf("%s has mac %s, not %s: %w", l.Name, l.MAC, m.MAC, vnic.ErrNICMissing)
	}
	nic = nicOf(l)
	nic.ID, nic.Netns = m.ID, m.Netns
	d, _ := a.known.get(m.MAC)
	if d.driver == "" {
		if d.driver, d.pci, err = c.Driver(l.Name); err != nil {
			return nic, l, err
		}
		a.known.edit(m.MAC, func(k *device) { k.driver, k.pci = d.driver, d.pci })
	}
	nic.Driver, nic.PCI = d.driver, d.pci
	return nic, l, nil
}

// rename gives a vNIC that is in the pod the wanted name. It leaves it down.
func (a *Agent) rename(at place, m vnic.Move) error {
	err := a.do(at, func(c *rtnl.Conn) error {
		return c.Do(rtnl.SetDown(at.link.Index), rtnl.SetLink(at.link.Index, rtnl.Change{Name: m.Interface}))
	})
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", errLeft, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("rename %s to %s in pod %s: %w: %w; choose another name", at.link.Name, m.Interface, m.Netns, vnic.ErrNameTaken, err)
	case err != nil:
		return fmt.Errorf("rename %s in pod %s: %w", at.link.Name, m.Netns, err)
	}
	return nil
}

// transfer moves a vNIC from another namespace into the pod, by one message
// where the kernel lets it.
func (a *Agent) transfer(at place, pod *netnsx.NS, m vnic.Move) error {
	err := a.do(at, func(c *rtnl.Conn) error {
		return c.Do(rtnl.SetLink(at.link.Index, rtnl.Change{Netns: pod.FD(), Name: m.Interface, MTU: m.MTU}))
	})
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	// The kernel stops half way: the vNIC may be in the pod under its old name.
	err = fmt.Errorf("move %s into pod %s: %w", at.link.Name, m.Netns, err)
	taken, undoErr := a.putBack(at, pod, m)
	if undoErr != nil || taken != nil {
		return errors.Join(taken, err, undoErr)
	}
	a.log.Warn("move in small steps", slog.String("id", string(m.ID)), slog.Any("error", err))
	if stepsErr := a.transferBySteps(at, pod, m); stepsErr != nil {
		return errors.Join(err, stepsErr)
	}
	return nil
}

// putBack moves a vNIC out of the pod again, if it is there. It also tells
// whether another link has the wanted name.
func (a *Agent) putBack(at place, pod *netnsx.NS, m vnic.Move) (taken, err error) {
	err = within(pod, func(c *rtnl.Conn) error {
		all, err := c.Links()
		if err != nil {
			return err
		}
		taken = nameFree(all, m)
		l, ok := rtnl.FindMAC(all, m.MAC)
		if !ok {
			return nil
		}
		return c.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: at.ns.FD(), Name: m.ID.LinkName(), MTU: at.link.MTU}))
	})
	if err != nil {
		return taken, fmt.Errorf("put vnic %s back: %w", m.MAC, err)
	}
	return taken, nil
}

// transferBySteps moves a vNIC through a namespace of its own, where it loses
// its alternative names, which may be what the pod's clash with, and is named.
func (a *Agent) transferBySteps(at place, pod *netnsx.NS, m vnic.Move) (err error) {
	tmp, err := netnsx.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Close()) }()
	err = a.do(at, func(c *rtnl.Conn) error {
		all, err := c.Links() // putBack may have changed the index
		if err != nil {
			return err
		}
		l, ok := rtnl.FindMAC(all, m.MAC)
		if !ok {
			return errLeft
		}
		return c.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: tmp.FD()}))
	})
	if err != nil {
		return fmt.Errorf("move vnic %s aside: %w", m.MAC, err)
	}
	return within(tmp, func(c *rtnl.Conn) error { return leaveBySteps(c, at, pod, m) })
}

// leaveBySteps moves the vNIC from the temporary namespace of c on into the
// pod, or back when that fails.
func leaveBySteps(c *rtnl.Conn, at place, pod *netnsx.NS, m vnic.Move) error {
	all, err := c.Links()
	if err != nil {
		return err
	}
	l, ok := rtnl.FindMAC(all, m.MAC)
	if !ok {
		return fmt.Errorf("look for vnic %s on its way: %w", m.MAC, fs.ErrNotExist)
	}
	steps := []rtnl.Request{rtnl.SetLink(l.Index, rtnl.Change{Name: m.Interface})}
	if len(l.AltNames) > 0 {
		steps = append(steps, rtnl.DelAltNames(l.Index, l.AltNames))
	}
	if m.MTU != 0 {
		steps = append(steps, rtnl.SetLink(l.Index, rtnl.Change{MTU: m.MTU}))
	}
	steps = append(steps, rtnl.SetLink(l.Index, rtnl.Change{Netns: pod.FD()}))
	for _, s := range steps {
		if err := c.Do(s); err != nil {
			back := rtnl.SetLink(l.Index, rtnl.Change{Netns: at.ns.FD(), Name: m.ID.LinkName(), MTU: at.link.MTU})
			return errors.Join(err, c.Do(back))
		}
	}
	return nil
}
