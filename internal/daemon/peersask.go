package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// askPeersLimit bounds how long the others are asked for a pod, all at once.
const askPeersLimit = 10 * time.Second

// ofPod returns the daemon of the hypervisor that a pod has attachments on. It is nil
// when that is this one, which is looked at first, or nobody. A name that pods of several
// have is [vnic.ErrInvalid]; when nobody is known to have it, one that does not answer
// is an error, since it may be the one.
func (f *forwarding) ofPod(ctx context.Context, pod string) (*peer, error) {
	if isForwarded(ctx) || vnic.CheckPodName(pod) != nil { // such a one the server refuses
		return nil, nil
	}
	list, err := f.orch.List(ctx, orchestrator.Filter{Pod: pod})
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		return nil, f.onlyHere(ctx, pod)
	}
	have, err := f.ask(ctx, pod)
	switch {
	case len(have) == 1:
		return have[0], nil
	case len(have) > 1:
		names := make([]string, len(have))
		for i, p := range have {
			names[i] = p.Name
		}
		return nil, onlyOne(pod, names)
	case err != nil:
		return nil, fmt.Errorf("find pod %s, name its vm by --vm if you know it: %w", pod, err)
	}
	return nil, nil
}

// onlyHere returns an error when other hypervisors that are alive have a pod, too. They
// are not asked: it is known.
func (f *forwarding) onlyHere(ctx context.Context, pod string) error {
	self := f.dir.Hypervisor()
	holders := f.dir.HypervisorsOfPod(pod)
	if !slices.ContainsFunc(holders, func(h string) bool { return h != self }) {
		return nil
	}
	all, err := f.dir.Hypervisors(ctx)
	if err != nil {
		return err
	}
	var have []string
	for _, h := range all {
		if h.Name == self || h.State == vnic.HypervisorAlive && slices.Contains(holders, h.Name) {
			have = append(have, h.Name)
		}
	}
	return onlyOne(pod, have)
}

// onlyOne returns an error when several hypervisors have a pod.
func onlyOne(pod string, hypervisors []string) error {
	if len(hypervisors) < 2 {
		return nil
	}
	return fmt.Errorf("pod %s is on hypervisors %s, name its vm by --vm: %w", pod, strings.Join(hypervisors, " and "), vnic.ErrInvalid)
}

// ask returns the living hypervisors, but for this one, that a pod has attachments on.
// The error is of those that could not be asked.
func (f *forwarding) ask(ctx context.Context, pod string) (have []*peer, err error) {
	list, err := f.dir.Hypervisors(ctx)
	if err != nil {
		return nil, err
	}
	f.peers.keep(list)
	ctx, cancel := context.WithTimeout(ctx, askPeersLimit)
	defer cancel()
	found := make([]*peer, len(list))
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, h := range list {
		if h.State != vnic.HypervisorAlive || h.Name == f.dir.Hypervisor() {
			continue
		}
		wg.Go(func() { found[i], errs[i] = f.askOne(ctx, h.Hypervisor, pod) })
	}
	wg.Wait()
	for _, p := range found {
		if p != nil {
			have = append(have, p)
		}
	}
	return have, errors.Join(errs...)
}

// askOne returns the daemon of a hypervisor if a pod has attachments there.
func (f *forwarding) askOne(ctx context.Context, h vnic.Hypervisor, pod string) (*peer, error) {
	p, err := f.peers.get(h)
	if err != nil {
		return nil, err
	}
	got, err := p.List(p.mark(ctx), &brfusev1.ListRequest{Pod: pod})
	if err != nil {
		return nil, p.failure(ctx, err)
	}
	if len(got.GetAttachments()) == 0 {
		return nil, nil
	}
	return p, nil
}
