package guestside

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// place is where a vNIC is. It is closed when no longer needed.
type place struct {
	ns    *netnsx.NS
	owned bool   // ns is open for this place only
	ref   string // what ns was opened by, if owned
	link  rtnl.Link
}

func (p place) close() error {
	if p.owned {
		return p.ns.Close()
	}
	return nil
}

// do runs fn with a connection in p's namespace.
func (a *Agent) do(p place, fn func(c *rtnl.Conn) error) error {
	if p.ns == a.home {
		return fn(a.conn)
	}
	return within(p.ns, fn)
}

// find returns where the vNIC is, and awaits it in the first namespace until
// ctx ends when it is nowhere. It doesn't hold the pod's namespace while it waits.
func (a *Agent) find(ctx context.Context, m vnic.Move) (place, error) {
	if l, ok := a.links.find(m.MAC); ok {
		return place{ns: a.home, link: l}, nil
	}
	// A vNIC that Prepare didn't see in the pod has yet to appear: entering the
	// pod again would slow down a small guest that is taking in the device.
	if r, ok := a.records.get(m.MAC); !ok || r.inPod || r.netns != m.Netns {
		p, found, err := a.look(m)
		if found || err != nil {
			return p, err
		}
	}
	return a.await(ctx, m)
}

// look looks for a vNIC in the pod and in the namespace where it was last.
func (a *Agent) look(m vnic.Move) (place, bool, error) {
	pod, err := a.openPod(m.Netns)
	if err != nil {
		return place{}, false, err
	}
	if p, ok, err := a.lookInto(pod, m.MAC); ok || err != nil {
		return p, ok, err
	}
	r, ok := a.records.get(m.MAC)
	if !ok || !r.inPod || r.netns == m.Netns {
		return place{}, false, nil
	}
	return a.lookAt(r.netns, m.MAC)
}

// lookIn looks for a vNIC in ns. Whoever is root in a pod can make a virtual
// device with the MAC of another pod's vNIC; such a device is not it.
func (a *Agent) lookIn(ns *netnsx.NS, mac vnic.MAC) (l rtnl.Link, ok bool, err error) {
	err = within(ns, func(c *rtnl.Conn) error {
		all, err := c.Links()
		l, ok = rtnl.FindMAC(all, mac)
		ok = ok && (l.Kind == "" || l.Kind == a.standIn)
		return err
	})
	return l, ok, err
}

// lookAt looks for a vNIC in the namespace that ref names. A namespace that is
// not there has none.
func (a *Agent) lookAt(ref string, mac vnic.MAC) (place, bool, error) {
	ns, err := netnsx.Open(ref)
	if errors.Is(err, vnic.ErrUnknownPod) {
		return place{}, false, nil
	}
	if err != nil {
		return place{}, false, err
	}
	p, ok, err := a.lookInto(ns, mac)
	p.ref = ref
	return p, ok, err
}

// lookInto looks for a vNIC in ns, and closes ns when it isn't there.
func (a *Agent) lookInto(ns *netnsx.NS, mac vnic.MAC) (place, bool, error) {
	l, ok, err := a.lookIn(ns, mac)
	if !ok || err != nil {
		return place{}, false, errors.Join(err, ns.Close())
	}
	return place{ns: ns, owned: true, link: l}, true, nil
}

// search looks for a vNIC in all namespaces. It is the last resort. When ctx
// ends first, it is not known whether there is one, which is an error.
func (a *Agent) search(ctx context.Context, mac vnic.MAC) (place, bool, error) {
	for path := range netnsx.All() {
		if ctx.Err() != nil {
			return place{}, false, fmt.Errorf("search all network namespaces for vnic %s: %w", mac, context.Cause(ctx))
		}
		// One that can't be entered, such as a process's that just ended, is no
		// reason to stop looking.
		if p, ok, err := a.lookAt(path, mac); ok && err == nil && p.ns.ID() != a.home.ID() {
			return p, true, nil
		} else if ok && err == nil {
			if err := p.close(); err != nil {
				return place{}, false, err
			}
		}
	}
	return place{}, false, nil
}

// maxBusy is how long a search for an awaited vNIC is put off at most.
const maxBusy = 8 * time.Second

// quietIn returns how long to put off a search for a vNIC that is awaited since
// start: while others come, it is likely that it will, and the guest is busy.
func (a *Agent) quietIn(start time.Time) time.Duration {
	return min(time.Until(a.links.lastNews().Add(a.searchAfter)), time.Until(start.Add(maxBusy)))
}

// searchUntil is search for a vNIC that is awaited: it is given up, with nothing
// found, when the vNIC appears. There is one such search at a time, since each
// visits all pods, which slows down a guest that is taking in many vNICs.
func (a *Agent) searchUntil(ctx context.Context, appeared <-chan struct{}, mac vnic.MAC) (place, bool, error) {
	wanted, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-appeared:
			cancel()
		case <-wanted.Done():
		}
	})
	release, err := a.searches.Lock(wanted, struct{}{})
	if err != nil {
		return place{}, false, ctx.Err()
	}
	defer release()
	p, found, err := a.search(wanted, mac)
	if err != nil && wanted.Err() != nil {
		err = ctx.Err()
	}
	return p, found, err
}

// await waits for a vNIC to appear in the first namespace.
func (a *Agent) await(ctx context.Context, m vnic.Move) (place, error) {
	start := time.Now()
	late := time.NewTimer(a.searchAfter)
	defer late.Stop()
	defer a.links.unawait(m.MAC)
	for {
		l, appeared := a.links.await(m.MAC)
		if appeared == nil {
			return place{ns: a.home, link: l}, nil
		}
		select {
		case <-appeared:
		case <-late.C:
			if wait := a.quietIn(start); wait > 0 {
				late.Reset(wait)
				continue
			}
			if p, ok, err := a.searchUntil(ctx, appeared, m.MAC); ok || err != nil && ctx.Err() == nil {
				return p, err
			}
		case <-ctx.Done():
			return place{}, fmt.Errorf("await vnic %s: %w within %s: %w; does the vm take hotplugged PCI devices, and has it the driver virtio_net?",
				m.MAC, vnic.ErrNICMissing, time.Since(start).Round(time.Millisecond), context.Cause(ctx))
		}
	}
}
