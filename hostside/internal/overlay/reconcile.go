package overlay

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// Replace declares all remote pods of a network in place of those that were declared
// before, and makes the kernel's tables say just that. It returns what it had to change.
// Of two pods with the same MAC or address, the last one has it. The network has been
// set. A pod whose MAC is at a local port is a [vnic.ErrAddressTaken]; all others are
// programmed nevertheless. The cost is that of reading all entries that are there, which
// is seconds for 100,000, and of writing those that differ. Of more than 130,000 pods
// in one network the entries can't be read.
func (o *Overlay) Replace(ctx context.Context, vni uint32, all []Remote) (Drift, error) {
	for _, r := range all {
		if err := o.check(r); err != nil {
			return Drift{}, fmt.Errorf("replace table of overlay network %d: %w", vni, err)
		}
	}
	n, err := o.use(vni)
	if err != nil {
		return Drift{}, err
	}
	defer n.work.Unlock()
	n.table.replace(all)
	d, err := o.rewrite(ctx, n)
	if err != nil {
		err = fmt.Errorf("replace table of overlay network %s: %w", n.Name, err)
	}
	return d, err
}

// rewrite makes the link of a network and all of its entries right. The caller holds the
// network's work.
func (o *Overlay) rewrite(ctx context.Context, n *network) (Drift, error) {
	if _, err := o.ensure(n); err != nil {
		return Drift{}, err
	}
	w := o.newWriter(n)
	err := w.all(ctx)
	return w.drift, err
}

// restore makes the link of a network right, and its entries if they went with another
// link or bridge. The caller holds the network's work.
func (o *Overlay) restore(ctx context.Context, n *network) (Drift, error) {
	fresh, err := o.ensure(n)
	if err != nil || !fresh {
		return Drift{}, err
	}
	w := o.newWriter(n)
	err = w.all(ctx)
	return w.drift, err
}

// Reconcile makes a network's link and its entries what they were declared to be, and
// returns what it had to repair, which counts as drift. Changes of the table don't wait
// for it. It is as dear as [Overlay.Replace], and is for every few minutes, not seconds:
// the monitor finds nearly all drift by itself.
func (o *Overlay) Reconcile(ctx context.Context, vni uint32) (Drift, error) {
	n, err := o.use(vni)
	if err != nil {
		return Drift{}, err
	}
	n.work.Unlock()
	d, err := o.compare(ctx, n)
	if err != nil {
		err = fmt.Errorf("reconcile overlay network %s: %w", n.Name, err)
	}
	return d, err
}

// compare lists what the kernel has, while others may change it, and has a closer look at
// what differs. The caller doesn't hold the network's work.
func (o *Overlay) compare(ctx context.Context, n *network) (Drift, error) {
	var w *writer
	total, err := o.counted(n, func() (Drift, error) {
		d, err := o.restore(ctx, n)
		w = o.newWriter(n)
		return d, err
	})
	if err != nil || w == nil {
		return total, err
	}
	if err := w.list(); err != nil {
		return total, err
	}
	var k keys
	_, _ = o.counted(n, func() (Drift, error) {
		k = w.differing()
		return Drift{}, nil
	})
	d, err := o.lookAt(ctx, n, k)
	total.add(d)
	return total, err
}

// lookAt repairs what is wrong of some entries, a few at a time.
func (o *Overlay) lookAt(ctx context.Context, n *network, k keys) (total Drift, err error) {
	for len(k.macs)+len(k.addrs) > 0 {
		var few keys
		few.macs, k.macs = split(k.macs)
		few.addrs, k.addrs = split(k.addrs)
		d, someErr := o.counted(n, func() (Drift, error) {
			w := o.newWriter(n)
			err := w.some(ctx, few)
			return w.drift, err
		})
		total.add(d)
		if err == nil {
			err = someErr
		}
	}
	return total, err
}

func split[T any](s []T) (few, rest []T) {
	i := min(len(s), writeChunk)
	return s[:i], s[i:]
}

// counted does something with a network, holding its work, unless it is gone. It counts
// what it repaired as drift.
func (o *Overlay) counted(n *network, do func() (Drift, error)) (Drift, error) {
	n.work.Lock()
	defer n.work.Unlock()
	if n.gone || n.Bridge == "" {
		return Drift{}, nil
	}
	d, err := do()
	o.count(d)
	return d, err
}

// Set declares remote pods of a network, new ones or such that have changed. It takes as
// long as these take, however many others there are. A pod whose MAC is at a local port
// is a [vnic.ErrAddressTaken], and takes effect when that port is gone; the others are
// programmed nevertheless.
func (o *Overlay) Set(ctx context.Context, vni uint32, some ...Remote) error {
	for _, r := range some {
		if err := o.check(r); err != nil {
			return fmt.Errorf("set pods of overlay network %d: %w", vni, err)
		}
	}
	return o.change(ctx, vni, "set", func(t *table) keys { return t.set(some) })
}

// Remove declares that remote pods of a network are gone. It takes as long as these take.
// Those that aren't there are no error.
func (o *Overlay) Remove(ctx context.Context, vni uint32, macs ...vnic.MAC) error {
	return o.change(ctx, vni, "remove", func(t *table) keys { return t.remove(macs) })
}

func (o *Overlay) change(ctx context.Context, vni uint32, verb string, do func(*table) keys) error {
	n, err := o.use(vni)
	if err != nil {
		return err
	}
	defer n.work.Unlock()
	w := o.newWriter(n)
	if err := w.some(ctx, do(&n.table)); err != nil {
		return fmt.Errorf("%s pods of overlay network %s: %w", verb, n.Name, err)
	}
	return nil
}
