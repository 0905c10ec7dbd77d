package etcdstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// marksTTL is how long the marks of a daemon that died stay.
const marksTTL = time.Minute

// marks are the marks of one Store, as many as it ever had commits at a time. They
// go with a lease, by whose number they are called.
type marks struct {
	renewing sync.Mutex // held while a lease is granted

	mu    sync.Mutex
	lease clientv3.LeaseID // guarded by mu
	made  int              // guarded by mu; with this lease
	free  []*mark          // guarded by mu; all of this lease
}

// take returns a mark that nobody else uses, for give to take back.
func (ms *marks) take(s *Store) *mark {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if n := len(ms.free); n > 0 {
		m := ms.free[n-1]
		ms.free = ms.free[:n-1]
		return m
	}
	ms.made++
	return &mark{key: fmt.Sprintf("%smark/%016x/%d", s.cfg.Prefix, int64(ms.lease), ms.made), lease: ms.lease}
}

func (ms *marks) give(m *mark) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if !m.broken && m.lease == ms.lease {
		ms.free = append(ms.free, m)
	}
}

// renew takes a new lease in the place of one that is lost.
func (ms *marks) renew(ctx context.Context, s *Store, lost clientv3.LeaseID) error {
	ms.renewing.Lock()
	defer ms.renewing.Unlock()
	if ms.current() != lost {
		return nil // another did it
	}
	id, err := s.grant(ctx, marksTTL)
	if err != nil {
		return err
	}
	alive, err := s.cli.KeepAlive(s.life, id) //nolint:contextcheck // the lease outlives the call
	if err != nil {
		return s.explain(ctx, err)
	}
	go func() {
		for range alive { // until s.life ends, or the lease, which the next commit finds out
		}
	}()
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.lease, ms.made, ms.free = id, 0, nil
	return nil
}

func (ms *marks) current() clientv3.LeaseID {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.lease
}

// close gives the lease back. When etcd doesn't answer, time does it.
func (ms *marks) close(s *Store) {
	id := ms.current()
	if id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), time.Second)
	defer cancel()
	if _, err := s.cli.Revoke(ctx, id); err != nil {
		s.cfg.Log.Debug("the lease of commit marks is left to expire", "etcd", s.where(), "error", err)
	}
}

// grant returns a new lease.
func (s *Store) grant(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	var resp *clientv3.LeaseGrantResponse
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = s.cli.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		return err
	})
	if err != nil {
		return 0, err
	}
	return resp.ID, nil
}
