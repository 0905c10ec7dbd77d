package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// errBack says that a hypervisor came back while it was being released.
var errBack = errors.New("it has come back")

func stillReleased(tx store.ReadTx, name string) error {
	r, found, err := fabric.Find(tx, name)
	if err == nil && (!found || !r.Released) {
		err = errBack
	}
	return err
}

// releasedStore is a store whose transactions fail once a hypervisor has come back: what
// it holds by then is its own.
type releasedStore struct {
	store.Store
	name string
}

// Update implements [store.Store].
func (s releasedStore) Update(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		if err := stillReleased(tx, s.name); err != nil {
			return err
		}
		return fn(tx)
	})
}

// release deletes what a released hypervisor holds: attachments, with their
// endpoints, and vNICs of pools; then leases, MACs and blocks of addresses. Its VMs
// and pools stay registered. It may be repeated, and run by several at once.
func (o *Orchestrator) release(ctx context.Context, name string) error {
	home, db := fabric.Home(name), releasedStore{o.shared, name}
	if err := eraseAll(ctx, db, home+attachmentPrefix, eraseAttachment); err != nil {
		return err
	}
	err := eraseAll(ctx, db, home+selfPrefix, func(tx store.Tx, it store.Item) error {
		var s stand
		if err := decode(it, &s); err != nil {
			return err
		}
		return cmp.Or(tx.Delete(it.Key), tx.Delete(fabric.EndpointKey(strings.TrimPrefix(it.Key, home+selfPrefix), s.ID)))
	})
	if err != nil {
		return err
	}
	for _, p := range []string{keyPrefix, portPrefix, pooledPrefix, idlePrefix} {
		if err := eraseAll(ctx, db, home+p, eraseKey); err != nil {
			return err
		}
	}
	n, err := ipam.ReleaseHypervisor(ctx, db, home, name)
	if err != nil {
		return err
	}
	_, err = db.Update(ctx, func(tx store.Tx) error {
		r, _, err := fabric.Find(tx, name)
		if err != nil {
			return err
		}
		r.Emptied = true
		return save(tx, fabric.HypervisorPrefix+name, r)
	})
	if err == nil {
		o.log.Info("hypervisor is released", "hypervisor", name, "addresses", n)
	}
	return err
}

// releaseBatch is how many items are erased in one transaction, by some operations each.
const releaseBatch = 20

// eraseAll erases all items whose keys begin with prefix, some at a time.
func eraseAll(ctx context.Context, db store.Store, prefix string, erase func(store.Tx, store.Item) error) error {
	for {
		n := 0
		_, err := db.Update(ctx, func(tx store.Tx) error {
			items, err := tx.Scan(prefix, releaseBatch)
			if err != nil {
				return err
			}
			n = len(items)
			for _, it := range items {
				if err := erase(tx, it); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n < releaseBatch {
			return err
		}
	}
}

func eraseKey(tx store.Tx, it store.Item) error { return tx.Delete(it.Key) }

// eraseAttachment erases an attachment, and what points to it.
func eraseAttachment(tx store.Tx, it store.Item) error {
	var a vnic.Attachment
	if err := decode(it, &a); err != nil {
		return err
	}
	return cmp.Or(tx.Delete(it.Key), tx.Delete(fabric.EndpointKey(a.Request.Network, a.ID)), tx.Delete(fabric.IDPrefix+string(a.ID)))
}

// reapPause is the least time between two looks at who is dead: all look, though one
// acts, so that is seldom when there is time.
const reapPause = 5 * time.Second

// reap releases hypervisors that are dead for long. Of those that are alive the one
// whose name is first does so; that two do is harmless.
func (o *Orchestrator) reap() {
	dead := map[string]time.Time{} // since when
	after := o.cfg.Cluster.ReleaseAfter
	pause := min(after, max(reapPause, after/60))
	for {
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // so that not all do it at once
		select {
		case <-o.life.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := o.reapOnce(o.life, dead, time.Now()); err != nil && o.life.Err() == nil {
			o.log.Warn("dead hypervisors are not released, it will be tried again", "error", err)
			clear(dead) // nobody was seen meanwhile
		}
	}
}

// reapOnce looks once.
func (o *Orchestrator) reapOnce(ctx context.Context, dead map[string]time.Time, now time.Time) error {
	known, err := fabric.Hypervisors(ctx, o.shared)
	if err != nil {
		return err
	}
	first := ""
	var half []string // released, but not all that they held
	for _, k := range known {
		_, counted := dead[k.Name]
		switch {
		case k.Alive:
			delete(dead, k.Name)
			first = cmp.Or(first, k.Name)
		case k.Released && !k.Emptied:
			half = append(half, k.Name)
		case !k.Released && !counted:
			dead[k.Name] = now
		}
	}
	if first != o.Hypervisor() {
		return nil
	}
	for _, name := range half {
		o.log.Warn("the release of a dead hypervisor was not finished, going on with it", "hypervisor", name)
		if err := o.release(ctx, name); err != nil && !errors.Is(err, errBack) {
			return fmt.Errorf("release hypervisor %s: %w", name, err)
		}
	}
	for name, since := range dead {
		if now.Sub(since) < o.cfg.Cluster.ReleaseAfter {
			continue
		}
		o.log.Warn("hypervisor is dead for long, releasing what it holds", "hypervisor", name, "since", since)
		if err := o.giveUpHypervisor(ctx, name); err != nil && !errors.Is(err, vnic.ErrInUse) && !errors.Is(err, errBack) {
			return fmt.Errorf("release hypervisor %s: %w", name, err)
		}
		delete(dead, name)
	}
	return nil
}
