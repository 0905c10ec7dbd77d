package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// Links is the host's links in one network namespace. It is safe for
// concurrent use.
type Links struct {
	log  *slog.Logger
	nl   *rtnl.Handle
	conn *rtnl.Conn
	gone *rtnl.GoneWatch
	ns   *netnsx.NS

	bridges sync.Mutex // held while bridges are made and unfinished ones removed
	joins   sync.Mutex // held while a tap joins: two with the same MAC must not both

	deletions sync.WaitGroup // what the kernel has not finished

	jobs chan job
	stop chan struct{} // closed by Close
	done chan error    // gets the worker's end
}

type job struct {
	do   func() error
	done chan error
}

// New returns the links of the calling thread's network namespace.
func New(log *slog.Logger) (*Links, error) {
	ns, err := netnsx.Current()
	if err != nil {
		return nil, err
	}
	nl, err := rtnl.New()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	conn, err := rtnl.Dial()
	if err != nil {
		nl.Close()
		return nil, errors.Join(err, ns.Close())
	}
	gone, err := nl.WatchGone()
	if err != nil {
		nl.Close()
		return nil, errors.Join(err, conn.Close(), ns.Close())
	}
	l := &Links{log: log, nl: nl, conn: conn, gone: gone, ns: ns}
	if err := l.start(ns.Do); err != nil {
		l.gone.Close()
		l.nl.Close()
		return nil, errors.Join(fmt.Errorf("open host links: %w", err), conn.Close(), ns.Close())
	}
	return l, nil
}

// start has do run the worker in the namespace, and returns once it is there, or
// why it isn't.
func (l *Links) start(do func(func() error) error) error {
	l.jobs, l.stop, l.done = make(chan job), make(chan struct{}), make(chan error, 1)
	there := make(chan struct{})
	go func() {
		l.done <- do(func() error {
			close(there)
			return l.work()
		})
	}()
	select {
	case <-there:
		return nil
	case err := <-l.done:
		return err
	}
}

// Close lets go of the namespace. The links stay.
func (l *Links) Close() error {
	l.deletions.Wait()
	close(l.stop)
	err := <-l.done
	l.gone.Close()
	l.nl.Close()
	return errors.Join(err, l.conn.Close(), l.ns.Close())
}

// work runs jobs inside of the namespace. One thread stays there for them: a
// visit by setns takes some ten milliseconds, as much as all the rest of a plug.
func (l *Links) work() error {
	for {
		select {
		case j := <-l.jobs:
			j.done <- j.do()
		case <-l.stop:
			return nil
		}
	}
}

// Inside runs f in the namespace. Without a link socket of its own, what f
// does there is what the thread's namespace decides: taps, sysctls and sockets.
func (l *Links) Inside(ctx context.Context, f func() error) error {
	j := job{do: f, done: make(chan error, 1)}
	select {
	case l.jobs <- j:
		return <-j.done
	case <-l.stop:
		return fmt.Errorf("host links: %w", os.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
}
