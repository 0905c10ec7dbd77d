package libvirtvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/vnic"
)

const (
	outageLimit = 10 * time.Second // how long calls wait for libvirtd
	dialLimit   = 5 * time.Second
	minRedial   = 20 * time.Millisecond
	maxRedial   = time.Second
	stopLimit   = 10 * time.Second // from QEMU's end until libvirt's event, on a busy machine
	cleanLimit  = 10 * time.Second // for what nobody waits for
	callTries   = 4                // connections that one call uses
)

// keep holds the connection to libvirtd until the domain stops or the VM is closed.
func (v *VM) keep(c *client) {
	defer v.events.End()
	for c != nil {
		select {
		case <-c.nc.lost:
			v.lost(errors.New("the connection ended"))
		case <-v.ended:
		case <-v.life.Done():
			v.end(fmt.Errorf("connection is closed: %w", vnic.ErrVMGone))
		}
		c.close()
		c = v.redial()
	}
	v.log.Debug("connection to the domain ended", "cause", v.err())
}

// lost notes that libvirtd doesn't answer.
func (v *VM) lost(why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		v.log.Warn("libvirtd is gone; the domain may go on", "socket", v.where.socket())
	}
	v.client, v.outage = nil, why
	v.wakeLocked()
}

// end notes that the domain is gone, or the VM closed, and why.
func (v *VM) end(why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone != nil {
		return
	}
	v.gone, v.client = why, nil
	close(v.ended)
	v.wakeLocked()
}

func (v *VM) err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone
}

// redial connects again, and again until that succeeds. It returns nil when the
// domain is gone or the VM closed.
func (v *VM) redial() *client {
	for pause := minRedial; ; pause = min(2*pause, maxRedial) {
		if v.err() != nil {
			return nil
		}
		c, err := v.reconnect()
		switch {
		case err == nil:
			v.log.Info("libvirtd answers again")
			v.events.Push(vnic.Event{Kind: vnic.EventVMUp, VM: v.name})
			return c
		case errors.Is(err, errStopped):
			v.end(err)
			return nil
		}
		v.lost(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-v.life.Done():
			v.end(fmt.Errorf("connection is closed: %w", vnic.ErrVMGone))
		}
		timer.Stop()
	}
}

// reconnect connects once more to the same run of the domain.
func (v *VM) reconnect() (*client, error) {
	ctx, cancel := context.WithTimeout(v.life, dialLimit)
	defer cancel()
	c, err := connect(ctx, v.where, v.handle, v.log)
	if err != nil {
		return nil, err
	}
	if c.domain.ID != v.run.ID || c.domain.UUID != v.run.UUID {
		err = fmt.Errorf("domain %s was started again: %w", v.where.Name, errStopped)
	} else {
		err = v.adopt(ctx, c)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connection returns a connection other than stale, which may be nil. It waits
// for libvirtd, for ten seconds at most. The error is [vnic.ErrVMGone] when the
// domain is gone.
func (v *VM) connection(ctx context.Context, stale *client) (*client, error) {
	limit := time.NewTimer(outageLimit)
	defer limit.Stop()
	for {
		v.mu.Lock()
		c, outage, gone, changed := v.client, v.outage, v.gone, v.changed
		v.mu.Unlock()
		switch {
		case gone != nil:
			return nil, gone
		case c != nil && c != stale:
			return c, nil
		}
		if err := context.Cause(ctx); err != nil {
			return nil, v.outageError(outage, err)
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, v.outageError(outage, nil)
		case <-ctx.Done():
			return nil, v.outageError(outage, context.Cause(ctx))
		}
	}
}

// outageError says why there is no connection, and is a context's error when that
// ended the wait.
func (v *VM) outageError(why, end error) error {
	if o, ok := errors.AsType[*outageError](why); ok {
		why = o.cause
	}
	if why == nil {
		why = errors.New("the connection ended")
	}
	err := error(&outageError{v.where.socket(), why})
	if end != nil {
		return fmt.Errorf("%w: %w", err, end)
	}
	return err
}

// do calls f, which may be repeated, with a connection, and with the next one when
// that is lost meanwhile.
func (v *VM) do(ctx context.Context, f func(*client) error) error {
	var stale *client
	for range callTries {
		c, err := v.connection(ctx, stale)
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err = f(c); !c.lost(err) {
			return v.explain(ctx, err)
		}
		stale = c
	}
	return &outageError{v.where.socket(), fmt.Errorf("it ended %d connections, one after the other", callTries)}
}

// explain returns why the domain is gone when that is what err comes from.
func (v *VM) explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[libvirt.Error](err); !ok {
		return err
	}
	if !notRunning(err) && !monitorLost(err) && !backendLost(err) {
		if gone := v.err(); gone != nil {
			return fmt.Errorf("%w: %w", gone, err)
		}
		return err
	}
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-v.ended:
		return fmt.Errorf("%w: %w", v.err(), err)
	case <-timer.C:
	case <-ctx.Done():
	}
	return err
}
