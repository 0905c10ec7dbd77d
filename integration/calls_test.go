package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// calls attaches and detaches pods of one VM by the daemon's API, timed. It is
// safe for concurrent use.
type calls struct {
	site *site.Site
	vm   string

	mu       sync.Mutex
	addrs    map[string]string // of pods, by what the last attach gave; guarded by mu
	refusals map[vnic.Code]int // that insist has met; guarded by mu
}

func newCalls(s *site.Site, vm string) *calls {
	return &calls{site: s, vm: vm, addrs: map[string]string{}, refusals: map[vnic.Code]int{}}
}

func (c *calls) attach(ctx context.Context, pod string) (time.Duration, error) {
	cl, err := c.site.Client()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	a, err := cl.Attach(ctx, &brfusev1.AttachRequest{Vm: c.vm, Pod: pod})
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("attach %s: %w", pod, rpcerr.Decode(err))
	}
	addr, _, _ := strings.Cut(a.GetAddresses()[0], "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addrs[pod] = addr
	return took, nil
}

func (c *calls) detach(ctx context.Context, pod string) (time.Duration, error) {
	cl, err := c.site.Client()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	_, err = cl.Detach(ctx, &brfusev1.DetachRequest{Vm: c.vm, Pod: pod})
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("detach %s: %w", pod, rpcerr.Decode(err))
	}
	return took, nil
}

// insist calls until there is no error, or one that has none of the codes.
func (c *calls) insist(ctx context.Context, pod string, call func(context.Context, string) (time.Duration, error), codes ...vnic.Code) error {
	var wrong error
	err := site.Until(ctx, "success for "+pod, func(ctx context.Context) (bool, error) {
		_, err := call(ctx, pod)
		if err == nil {
			return true, nil
		}
		code := vnic.CodeOf(err)
		c.mu.Lock()
		c.refusals[code]++
		c.mu.Unlock()
		if !slices.Contains(codes, code) && ctx.Err() == nil {
			wrong = err
			return true, nil
		}
		return false, err
	})
	if wrong != nil {
		return wrong
	}
	return err
}

// ping has the host ping a pod's last address.
func (c *calls) ping(ctx context.Context, pod string) error {
	c.mu.Lock()
	addr := c.addrs[pod]
	c.mu.Unlock()
	if _, err := c.site.Output(ctx, "ping", "-c", "1", "-w", "10", "-i", "0.5", addr); err != nil {
		return fmt.Errorf("ping %s at %s: %w", pod, addr, err)
	}
	return nil
}
