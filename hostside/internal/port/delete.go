package port

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// DeleteTap deletes a tap, whoever holds descriptors of it, and returns when
// nobody finds it any more. What the kernel has to do after that, it does without
// making anyone wait but Close: whoever closes the last descriptor first waits for
// all of it. A tap that is gone is no error.
func (l *Links) DeleteTap(ctx context.Context, id vnic.ID) error {
	link, err := l.tap(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// A connection of its own: others would wait for its turn.
	var conn *rtnl.Conn
	err = l.Inside(ctx, func() (err error) {
		conn, err = rtnl.Dial()
		return err
	})
	if err != nil {
		return err
	}
	wait, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	l.deletions.Go(func() {
		err := errors.Join(conn.Do(rtnl.DeleteLink(link).Tolerate(unix.ENODEV)), conn.Close())
		if err != nil {
			failed(err)
		}
	})
	err = l.gone.Wait(wait, link.Name)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return context.Cause(wait)
	}
	return err
}
