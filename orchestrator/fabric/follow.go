package fabric

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// follow reads the store and its changes until ctx ends.
func (f *Fabric) follow(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := f.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if !errors.Is(err, store.ErrCompacted) {
			f.cfg.Log.Warn("store is not followed, it will be tried again", "error", err, "pause", pause)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// session reads the store once and follows it until that fails.
func (f *Fabric) session(ctx context.Context) error {
	rev, err := f.read(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	events := make(chan store.Event, maxBatch)
	failed := make(chan error, 3)
	for _, prefix := range []string{EndpointPrefix, ServicePrefix, NetworkPrefix} {
		wg.Go(func() {
			for ev, err := range f.cfg.Store.Watch(ctx, prefix, rev+1) {
				if err != nil {
					failed <- fmt.Errorf("watch %s: %w", prefix, err)
					return
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return
				}
			}
			failed <- fmt.Errorf("watch %s: it ended", prefix)
		})
	}
	for {
		select {
		case ev := <-events:
			f.take(ctx, batch(ev, events))
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// batch returns first and what waits behind it.
func batch(first store.Event, events <-chan store.Event) []store.Event {
	list := []store.Event{first}
	for len(list) < maxBatch {
		select {
		case ev := <-events:
			list = append(list, ev)
		default:
			return list
		}
	}
	return list
}

// read takes in all that the store has, and marks all as to be declared.
func (f *Fabric) read(ctx context.Context) (rev int64, err error) {
	s := newState(f.cfg)
	var c changes
	var networks []store.Item
	err = f.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		s, c = newState(f.cfg), changes{}
		rev = tx.Rev()
		endpoints, err := tx.Scan(EndpointPrefix, 0)
		if err != nil {
			return err
		}
		services, err := tx.Scan(ServicePrefix, 0)
		if err != nil {
			return err
		}
		for _, it := range slices.Concat(endpoints, services) {
			f.absorb(s, store.Event{Item: it}, &c)
		}
		networks, err = tx.Scan(NetworkPrefix, 0)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the store: %w", err)
	}
	changed := map[string]bool{}
	for _, it := range networks {
		changed[it.Key] = true
	}
	f.mu.Lock()
	first := f.state == nil
	f.state, f.dirty = s, true
	for name, u := range f.used {
		u.dirty = true
		changed[NetworkPrefix+name] = true // it may be gone
	}
	f.mu.Unlock()
	if first {
		close(f.ready)
	}
	for key := range changed {
		f.changed(key)
	}
	f.tellNeeded()
	f.poke()
	return rev, nil
}

func (f *Fabric) changed(key string) {
	if f.cfg.Changed != nil {
		f.cfg.Changed(strings.TrimPrefix(key, NetworkPrefix))
	}
}

func (f *Fabric) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// absorb takes one event into s.
func (f *Fabric) absorb(s *state, ev store.Event, c *changes) {
	var err error
	switch {
	case strings.HasPrefix(ev.Key, EndpointPrefix):
		network, id, _ := strings.Cut(strings.TrimPrefix(ev.Key, EndpointPrefix), "/")
		if ev.Deleted {
			s.drop(network, vnic.ID(id), c)
			return
		}
		var e vnic.Endpoint
		if e, err = decode[vnic.Endpoint](ev.Item); err == nil {
			s.put(e, c)
		}
	case strings.HasPrefix(ev.Key, ServicePrefix):
		name := strings.TrimPrefix(ev.Key, ServicePrefix)
		if ev.Deleted {
			s.dropService(name, c)
			return
		}
		var svc vnic.Service
		if svc, err = decode[vnic.Service](ev.Item); err == nil {
			s.putService(svc, c)
		}
	}
	if err != nil {
		f.cfg.Log.Error("entry of the store is left out", "error", err)
	}
}
