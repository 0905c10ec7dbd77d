package guestside

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// renew makes a vNIC that is in the first namespace like a new one, and proves
// it. It is errLeft when it isn't there.
func (a *Agent) renew(ctx context.Context, m vnic.Move, was before) (nic vnic.NIC, err error) {
	defer a.rcu.begin()()
	if !was.moved {
		if err := a.tidy(m); err != nil {
			return nic, err
		}
	}
	known, _ := a.known.get(m.MAC)
	now, err := a.examine(m, known, !was.moved)
	if err != nil {
		return nic, err
	}
	switch diffs := now.differences(known, m); {
	case known.facts == nil && !a.isFresh(now.device):
		a.log.Info("vnic was in use before it was known", slog.String("id", string(m.ID)))
		now, err = a.rebind(ctx, m, now, "it was not seen when it was new")
	case known.facts == nil:
		now.used = false
		a.known.put(m.MAC, now.device)
	case was.down && known.used && a.standIn == "":
		now, err = a.rebind(ctx, m, now, "its link was down, and may hold frames")
	case len(diffs) > 0:
		now, err = a.rebind(ctx, m, now, "it differs in "+strings.Join(diffs, ", "))
	default:
		known.used, known.link.Index = false, now.link.Index
		a.known.put(m.MAC, known)
	}
	if err != nil {
		return nic, err
	}
	a.links.note(now.link)
	nic = nicOf(now.link)
	nic.ID, nic.PCI, nic.Driver = m.ID, now.pci, now.driver
	return nic, nil
}

// tidy takes from a vNIC in the first namespace what moving it would.
func (a *Agent) tidy(m vnic.Move) error {
	at, ok := a.links.find(m.MAC)
	if !ok {
		return errLeft
	}
	var l rtnl.Link
	var addrs []rtnl.Addr
	if err := a.conn.Do(rtnl.GetLinkIndex(&l, at.Index).Tolerate(unix.ENODEV), rtnl.GetAddrs(&addrs)); err != nil {
		return err
	}
	if !l.HasMAC(m.MAC) {
		a.links.forget(at.Index, m.MAC)
		return errLeft
	}
	c := a.likeNew(l, m)
	var reqs []rtnl.Request
	if len(l.AltNames) > 0 {
		reqs = append(reqs, rtnl.DelAltNames(l.Index, l.AltNames))
	}
	for _, p := range prefixes(addrs, l.Index) {
		reqs = append(reqs, rtnl.DelAddr(l.Index, p).Tolerate(unix.EADDRNOTAVAIL))
	}
	if l.Name != m.ID.LinkName() {
		// Apart: a link that is up isn't renamed, and the flags come after the name.
		reqs = append(reqs, rtnl.SetDown(l.Index))
		c.Name = m.ID.LinkName()
	}
	err := a.conn.Do(append(reqs, rtnl.SetLink(l.Index, c).Tolerate(unix.EBUSY))...)
	if errors.Is(err, unix.ENODEV) {
		a.links.forget(at.Index, m.MAC)
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	return err
}

// examine looks at all of a vNIC that anyone may have changed.
func (a *Agent) examine(m vnic.Move, known device, thorough bool) (now examined, err error) {
	name := m.ID.LinkName()
	now = examined{device: device{facts: rtnl.Facts{}, pci: known.pci, driver: known.driver, used: known.used}}
	err = a.conn.Do(rtnl.GetFacts(now.facts, &now.link, name))
	if errors.Is(err, unix.ENODEV) || err == nil && !now.link.HasMAC(m.MAC) {
		return now, fmt.Errorf("%s is not the vnic: %w", name, errLeft)
	}
	if err != nil {
		return now, err
	}
	if now.driver == "" {
		if now.driver, now.pci, err = a.conn.Driver(name); err != nil {
			return now, left(err)
		}
	}
	if err := a.settle(name, known); err != nil {
		return now, left(err)
	}
	driver, err := a.conn.EthtoolFacts(name, known.facts)
	if err != nil {
		return now, left(err)
	}
	now.facts.Add(driver)
	if err := a.addPrograms(now); err != nil {
		return now, err
	}
	if a.standIn == "" {
		files, err := sysfsFacts(name)
		if err != nil {
			return now, left(err)
		}
		now.facts.Add(files)
	}
	if thorough {
		return now, a.examineAtHome(name, now)
	}
	return now, nil
}

// left makes that a link is missing an errLeft too.
func left(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	return err
}

// settle gives a vNIC the number of queues that it had, which attaching changes.
func (a *Agent) settle(name string, known device) error {
	n := known.facts.Queues()
	if n == 0 {
		return nil
	}
	_, err := a.conn.SetQueues(name, n)
	if errors.Is(err, vnic.ErrUnsupported) {
		return nil
	}
	return err
}

// examineAtHome looks at what a move renews, for a vNIC that was not moved.
func (a *Agent) examineAtHome(name string, now examined) error {
	if a.standIn == "" {
		now.facts.Add(neighbourFacts(name))
	}
	var there bool
	if err := a.conn.Do(rtnl.GetIngress(&there, now.link.Index)); err != nil {
		return err
	}
	if there {
		now.facts["ingress filters"] = "some"
	}
	return nil
}

// examined is a vNIC as it is now.
type examined struct{ device }

// differences returns the names of what isn't as it was when the vNIC was new.
func (now examined) differences(fresh device, m vnic.Move) []string {
	want := rtnl.Facts{}
	want.Add(fresh.facts)
	if m.MTU != 0 {
		want.SetMTU(m.MTU)
	}
	return want.Differ(now.facts)
}
