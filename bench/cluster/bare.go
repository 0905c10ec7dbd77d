package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// bare sends transactions by nothing but etcd's client.
type bare struct {
	clients        []*clientv3.Client // one for each worker
	attach, detach []step
}

// newBare connects, and copies how a hypervisor's transactions look, which has a pod
// already.
func newBare(ctx context.Context, endpoints []string, workers int, h *hypervisor) (*bare, error) {
	b := &bare{}
	for range workers {
		cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: joinLimit, Logger: zap.NewNop()})
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.clients = append(b.clients, cli)
	}
	if err := b.copy(ctx, h); err != nil {
		return nil, errors.Join(fmt.Errorf("record an attach and a detach: %w", err), b.close())
	}
	return b, nil
}

func (b *bare) copy(ctx context.Context, h *hypervisor) error {
	if _, err := h.attach(ctx, firstPod); err != nil { // which has the network made
		return err
	}
	attach, err := h.store.record(func() error {
		_, err := h.attach(ctx, samplePod)
		return err
	})
	if err != nil {
		return err
	}
	detach, err := h.store.record(func() error {
		_, err := h.orch.DetachKey(ctx, h.key(samplePod))
		return err
	})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	b.attach, b.detach = attach.steps(known), detach.steps(known)
	_, err = h.orch.DetachKey(ctx, h.key(firstPod))
	return err
}

func (b *bare) close() error {
	var errs []error
	for _, cli := range b.clients {
		errs = append(errs, cli.Close())
	}
	return errors.Join(errs...)
}

// run sends some transactions, one after the other, with keys that nobody else has,
// and returns how long the first took.
func (b *bare) run(ctx context.Context, worker int, name string, list []step) (first time.Duration, err error) {
	start := time.Now()
	for i, s := range list {
		if err := s.send(ctx, b.clients[worker], "/bare/"+name+"/"); err != nil {
			return 0, fmt.Errorf("bare transaction %d of %s: %w", i, name, err)
		}
		if i == 0 {
			first = time.Since(start)
		}
	}
	return first, nil
}

// send sends a step with keys under a prefix, again when etcd doesn't answer in time.
func (s step) send(ctx context.Context, cli *clientv3.Client, prefix string) error {
	var lost error
	for range insistTries {
		resp, err := s.transaction(cli.Txn(clientv3.WithRequireLeader(ctx)), prefix).Commit()
		switch {
		case err != nil:
			lost = err
		case resp.Succeeded || lost != nil: // one whose answer was lost may have been made
			return nil
		default:
			return errors.New("etcd is not as it was left")
		}
	}
	return lost
}

// transaction fills in a step with keys under a prefix.
func (s step) transaction(txn clientv3.Txn, prefix string) clientv3.Txn {
	var cmps []clientv3.Cmp
	for _, k := range s.absent {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix+k), "=", 0))
	}
	for _, k := range s.present {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix+k), ">", 0))
	}
	for _, k := range s.ranges {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix+k), "<", math.MaxInt64).WithPrefix())
	}
	var ops []clientv3.Op
	for k, v := range s.puts {
		ops = append(ops, clientv3.OpPut(prefix+k, v))
	}
	for _, k := range s.deletes {
		ops = append(ops, clientv3.OpDelete(prefix+k))
	}
	return txn.If(cmps...).Then(ops...)
}
