package libvirttest

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Keep starts libvirtd again whenever it has ended, as systemd does on hosts
// (Restart=on-failure), and calls back when it answers. It returns when ctx ends,
// after a start that is under way, or with the error of one that failed.
//
// While Keep runs, Kill is one more crash: libvirtd comes back without a Restart,
// and one that is called all the same waits for Keep's. End Keep before Close.
func (d *Daemon) Keep(ctx context.Context, back func()) error {
	for {
		err := d.awaitEnd(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // this end is wanted
		}
		if err != nil {
			return err
		}
		if err := d.Restart(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		back()
	}
}

// awaitEnd returns when libvirtd has ended, at once when it doesn't run.
func (d *Daemon) awaitEnd(ctx context.Context) error {
	d.mu.Lock() // a start under way writes the number
	p, err := d.process()
	d.mu.Unlock()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch libvirtd: %w", err)
	}
	defer p.close()
	return p.await(ctx)
}
