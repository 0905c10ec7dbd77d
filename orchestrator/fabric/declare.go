package fabric

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// declare hands on all of a network.
func (f *Fabric) declare(ctx context.Context, name string, u *use) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return nil
	}
	f.mu.Lock()
	stations, pods := f.state.stations(name), f.state.pods(name)
	u.dirty = false
	f.mu.Unlock()
	var err error
	if u.named {
		err = f.cfg.Names.Replace(name, pods)
	}
	if f.cfg.Overlay != nil && u.overlay {
		ctx, cancel := context.WithTimeout(ctx, applyLimit)
		defer cancel()
		err = errors.Join(err, f.cfg.Overlay.ReplaceStations(ctx, name, stations))
	}
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		u.dirty = true
		return fmt.Errorf("declare %d pods, %d of them elsewhere, of network %s: %w", len(pods), len(stations), name, err)
	}
	return nil
}

// take hands on what a batch of events changed.
func (f *Fabric) take(ctx context.Context, list []store.Event) {
	var c changes
	f.mu.Lock()
	for _, ev := range list {
		f.absorb(f.state, ev, &c)
	}
	f.dirty = f.dirty || c.services
	used := maps.Clone(f.used)
	f.mu.Unlock()
	for _, ev := range list {
		if strings.HasPrefix(ev.Key, NetworkPrefix) {
			f.changed(ev.Key)
		}
	}
	for name, u := range used {
		if len(c.ids[name]) > 0 {
			f.update(ctx, name, u, c.macs[name], c.ids[name])
		}
	}
	if c.services {
		f.tellNeeded()
		f.poke()
	}
}

// update hands on what changed of one network.
func (f *Fabric) update(ctx context.Context, name string, u *use, macs map[vnic.MAC]bool, ids map[vnic.ID]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f.mu.Lock()
	if u.gone || u.dirty { // all of it is about to be declared
		f.mu.Unlock()
		return
	}
	set, remove := f.state.stationChanges(name, macs)
	puts, deletes := f.state.podChanges(name, ids)
	f.mu.Unlock()
	err := errors.Join(f.rename(name, u, puts, deletes), f.move(ctx, name, u, set, remove))
	if err == nil {
		return
	}
	f.cfg.Log.Warn("a change is not declared, it will be tried again", "network", name, "error", err)
	f.mu.Lock()
	u.dirty = true
	f.mu.Unlock()
	f.poke()
}

// rename hands on what changed of names.
func (f *Fabric) rename(network string, u *use, puts []Named, deletes []vnic.ID) error {
	if !u.named {
		return nil
	}
	var errs []error
	for _, id := range deletes {
		errs = append(errs, f.cfg.Names.Delete(network, id))
	}
	for _, p := range puts {
		errs = append(errs, f.cfg.Names.Put(network, p))
	}
	return errors.Join(errs...)
}

// move hands on what changed of stations: first who is not there any more, for
// another may have its MAC.
func (f *Fabric) move(ctx context.Context, network string, u *use, set []vnic.Station, remove []vnic.MAC) error {
	if f.cfg.Overlay == nil || !u.overlay {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	if len(remove) > 0 {
		if err := f.cfg.Overlay.RemoveStations(ctx, network, remove); err != nil {
			return err
		}
	}
	if len(set) == 0 {
		return nil
	}
	return f.cfg.Overlay.SetStations(ctx, network, set)
}

// repair declares what is dirty, and all now and then.
func (f *Fabric) repair(ctx context.Context) {
	resync := time.NewTicker(f.cfg.Resync)
	defer resync.Stop()
	pause := firstPause
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-resync.C:
			f.markAll()
		case <-f.wake:
		case <-retry:
		}
		retry = nil
		if err := f.declareDirty(ctx); err != nil && ctx.Err() == nil {
			f.cfg.Log.Warn("not all is declared, it will be tried again", "error", err, "pause", pause)
			retry = time.After(pause)
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
	}
}

func (f *Fabric) markAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.used {
		u.dirty = true
	}
	f.dirty = true
}

func (f *Fabric) declareDirty(ctx context.Context) error {
	f.mu.Lock()
	if f.state == nil {
		f.mu.Unlock()
		return nil
	}
	list := map[string]*use{}
	for name, u := range f.used {
		if u.dirty {
			list[name] = u
		}
	}
	services := f.dirty
	var backends []vnic.Backend
	if services {
		backends, f.dirty = f.state.backends(), false
	}
	f.mu.Unlock()
	var errs []error
	for name, u := range list {
		errs = append(errs, f.declare(ctx, name, u))
	}
	if services && f.cfg.Services != nil {
		ctx, cancel := context.WithTimeout(ctx, applyLimit)
		defer cancel()
		if err := f.cfg.Services.SetServices(ctx, backends); err != nil {
			f.mu.Lock()
			f.dirty = true
			f.mu.Unlock()
			errs = append(errs, fmt.Errorf("declare %d services: %w", len(backends), err))
		}
	}
	return errors.Join(errs...)
}
