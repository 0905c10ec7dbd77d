package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Lease holds a key that goes when its holder does. It is safe for concurrent use.
type Lease struct {
	s    *Store
	id   clientv3.LeaseID
	key  string
	stop context.CancelFunc
	lost chan struct{}
	done sync.WaitGroup // the goroutines
}

// Alive puts key, over what it may have, for as long as the program lives: etcd
// deletes it when ttl, which is rounded up to seconds and is 2 s at least, has
// passed without a sign of it. The key is read and watched as any other. A key that
// a transaction puts is not held any more.
func (s *Store) Alive(ctx context.Context, key string, value []byte, ttl time.Duration) (*Lease, error) { //nolint:contextcheck // the lease outlives the call
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	id, err := s.grant(ctx, ttl)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", key, err)
	}
	l := &Lease{s: s, id: id, key: key, lost: make(chan struct{})}
	rev, err := l.put(ctx, value)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold %s: %w", key, err), l.revoke(context.WithoutCancel(ctx)))
	}
	life, stop := context.WithCancel(s.life)
	l.stop = stop
	kept, err := s.cli.KeepAlive(life, id) //nolint:contextcheck // see above
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("hold %s: %w", key, err), l.revoke(context.WithoutCancel(ctx)))
	}
	l.done.Go(func() { // ends when the time to live is over without an answer, too
		for range kept { // what etcd answers is of no interest
		}
		stop()
	})
	l.done.Go(func() {
		defer close(l.lost)
		defer stop()
		l.watch(life, rev)
	})
	return l, nil
}

func (l *Lease) put(ctx context.Context, value []byte) (rev int64, err error) {
	err = l.s.ask(ctx, func(ctx context.Context) error {
		resp, err := l.s.cli.Put(ctx, l.s.dataKey(l.key), string(value), clientv3.WithLease(l.id))
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	return rev, err
}

// watch returns when the key was changed or deleted after rev, or when ctx ends.
func (l *Lease) watch(ctx context.Context, rev int64) {
	for ev, err := range l.s.Watch(ctx, l.key, rev+1) {
		if err != nil || ev.Key == l.key {
			return
		}
	}
}

// Lost is closed when the key is not held any more: the lease could not be kept,
// somebody changed or deleted the key, or the Lease or its store was closed.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Close deletes the key, if it is still held. When etcd doesn't answer, the error
// is [store.ErrUnavailable], and the key goes when its time to live is over.
func (l *Lease) Close(ctx context.Context) error {
	l.stop()
	l.done.Wait()
	ctx, done, err := l.s.begin(ctx)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	return l.revoke(ctx)
}

func (l *Lease) revoke(ctx context.Context) error {
	err := l.s.ask(ctx, func(ctx context.Context) error {
		_, err := l.s.cli.Revoke(ctx, l.id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("release %s: %w", l.key, err)
	}
	return nil
}

// Pauses before KeepAlive takes a key again: the first, doubled each time, up to the last.
const firstPause, lastPause = 200 * time.Millisecond, 5 * time.Second

// errLost says that a key isn't held any more.
var errLost = errors.New("etcd has not heard of it in time, or another has changed it")

// KeepAlive holds key as Alive does, takes it again whenever it is lost, whatever
// keeps it from that, and releases it when ctx ends. It calls held each time that it
// has taken the key. It returns the error of ctx, or [os.ErrClosed] when the store is
// closed.
func (s *Store) KeepAlive(ctx context.Context, key string, value []byte, ttl time.Duration, held func()) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		l, err := s.Alive(ctx, key, value, ttl)
		if err == nil {
			held()
			pause = firstPause
			err = s.hold(ctx, l)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.life.Err() != nil:
			return os.ErrClosed
		}
		s.cfg.Log.Warn("others may take this program for dead, it will be tried again", "etcd", s.where(), "key", key, "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		case <-s.life.Done():
			timer.Stop()
		}
	}
}

// hold waits until a lease is lost, or gives it back when ctx ends.
func (s *Store) hold(ctx context.Context, l *Lease) error {
	select {
	case <-l.Lost():
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RequestTimeout)
	defer cancel()
	return errors.Join(errLost, l.Close(closing))
}
