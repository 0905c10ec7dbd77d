package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Watch returns all attachments, then each one again when it changes; one that
// is gone comes a last time, in phase released. It ends with the error of ctx,
// or of the store.
//
// A slow reader holds up nobody. One that falls far behind gets the present
// state of all attachments anew and misses what was in between.
func (o *Orchestrator) Watch(ctx context.Context) iter.Seq2[vnic.Attachment, error] {
	return func(yield func(vnic.Attachment, error) bool) {
		w := watcher{store: o.cfg.Store, known: map[vnic.ID]vnic.Attachment{}, yield: yield}
		for {
			err := w.snapshot(ctx)
			if err == nil {
				err = w.follow(ctx)
			}
			switch {
			case w.stopped:
				return
			case !errors.Is(err, store.ErrCompacted):
				yield(vnic.Attachment{}, fmt.Errorf("watch attachments: %w", err))
				return
			}
		}
	}
}

// watcher is one reader of Watch.
type watcher struct {
	store   store.Store
	rev     int64                       // all up to this revision was delivered
	known   map[vnic.ID]vnic.Attachment // as last delivered, without those that are gone
	yield   func(vnic.Attachment, error) bool
	stopped bool // the reader wants no more
}

func (w *watcher) deliver(a vnic.Attachment) bool {
	if a.Phase == vnic.PhaseReleased {
		delete(w.known, a.ID)
	} else {
		w.known[a.ID] = a
	}
	w.stopped = !w.yield(a, nil)
	return !w.stopped
}

// snapshot delivers all attachments as they are now, and those that vanished.
func (w *watcher) snapshot(ctx context.Context) error {
	var list []vnic.Attachment
	err := w.store.View(ctx, func(tx store.ReadTx) (err error) {
		w.rev = tx.Rev()
		list, err = all[vnic.Attachment](tx, attachmentPrefix)
		return err
	})
	if err != nil {
		return err
	}
	there := make(map[vnic.ID]bool, len(list))
	for _, a := range list {
		there[a.ID] = true
	}
	for id, a := range w.known {
		if !there[id] {
			a.Phase = vnic.PhaseReleased
			list = append(list, a)
		}
	}
	for _, a := range list {
		if !w.deliver(a) {
			return nil
		}
	}
	return nil
}

// follow delivers changes until the watch ends.
func (w *watcher) follow(ctx context.Context) error {
	if w.stopped {
		return nil
	}
	for ev, err := range w.store.Watch(ctx, attachmentPrefix, w.rev+1) {
		if err != nil {
			return err
		}
		var a vnic.Attachment
		if err := decode(ev.Item, &a); err != nil {
			return err
		}
		if ev.Deleted {
			a.Phase = vnic.PhaseReleased
		}
		if !w.deliver(a) {
			return nil
		}
	}
	return nil
}

// waitGone waits until there is no such attachment.
func (o *Orchestrator) waitGone(ctx context.Context, id vnic.ID) error {
	for {
		var rev int64
		var there bool
		err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
			it, err := tx.Get(attachmentKey(id))
			rev, there = tx.Rev(), it.Exists()
			return err
		})
		if err != nil || !there {
			return err
		}
		for ev, err := range o.cfg.Store.Watch(ctx, attachmentKey(id), rev+1) {
			if errors.Is(err, store.ErrCompacted) {
				break
			}
			if err != nil || ev.Deleted {
				return err
			}
		}
	}
}
