package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// ask makes a request that may be made twice, again and again while etcd doesn't
// answer, for RequestTimeout.
func (s *Store) ask(ctx context.Context, fn func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	var pause backoff
	for {
		err := s.once(limit, fn)
		if err == nil {
			return nil
		}
		if !silent(err) || pause.wait(limit) != nil {
			return s.explain(ctx, err)
		}
	}
}

// once makes one attempt of a request. A member without a leader refuses it at
// once, so that another may be asked. One that is refused for its token is made
// again with a new one.
func (s *Store) once(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.cfg.RequestTimeout/attempts)
	defer cancel()
	if s.login == nil {
		return fn(ctx)
	}
	token := s.token()
	err := fn(ctx)
	if renewable(err) {
		if err = s.login.renew(ctx, token); err == nil {
			err = fn(ctx)
		}
	}
	return err
}

// silent reports whether err says that etcd gave no answer, so that a request may
// have been carried out or not; else etcd refused it.
func silent(err error) bool {
	var e rpctypes.EtcdError
	return !errors.As(err, &e) || e.Code() == rpctypes.ErrNoLeader.(rpctypes.EtcdError).Code() //nolint:errorlint // a constant's type
}

// remedies of what etcd refuses.
var remedies = map[error]string{
	rpctypes.ErrNoSpace:          "compact and defragment etcd, then disarm its alarm (etcdctl alarm disarm)",
	rpctypes.ErrRequestTooLarge:  "put less into one transaction",
	rpctypes.ErrTooManyOps:       "touch fewer keys in one transaction, or raise etcd's --max-txn-ops",
	rpctypes.ErrAuthFailed:       "check user and password file",
	rpctypes.ErrUserEmpty:        "etcd wants a user: name one and its password file",
	rpctypes.ErrPermissionDenied: "name a user, or grant its role reading and writing of the prefix (etcdctl role grant-permission --prefix)",
}

// explain names the endpoints, the cause and the remedy.
func (s *Store) explain(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, os.ErrClosed):
		return fmt.Errorf("store in etcd at %s: %w", s.where(), cause)
	case errors.Is(cause, context.Canceled):
		return cause
	case silent(err):
		err = fmt.Errorf("etcd at %s: %w: %w; see that a majority of its members runs and can be reached from here (etcdctl endpoint status)",
			s.where(), store.ErrUnavailable, s.why(ctx, err))
		if cause != nil {
			return fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
	for e, remedy := range remedies {
		if errors.Is(err, e) {
			return fmt.Errorf("etcd at %s, prefix %s: %w; %s", s.where(), s.cfg.Prefix, err, remedy)
		}
	}
	return fmt.Errorf("etcd at %s: %w", s.where(), err)
}

// why returns what keeps the connection down, which the client's deadline hides.
func (s *Store) why(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, probe := pb.NewMaintenanceClient(s.cli.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if probe != nil && silent(probe) && errors.Is(err, context.DeadlineExceeded) {
		err = probe
	}
	return errors.New(rpctypes.ErrorDesc(err))
}

// backoff is a growing pause with jitter. The zero value is ready to use.
type backoff struct{ next time.Duration }

const backoffMin, backoffMax = 2 * time.Millisecond, 250 * time.Millisecond

// wait waits for the pause, or returns the error of ctx.
func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, backoffMin), backoffMax)
	t := time.NewTimer(rand.N(b.next)) //nolint:gosec // jitter
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
