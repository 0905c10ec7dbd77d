package site

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

const (
	// poolIdle is longer than any run: no pool of FillPool shrinks within it.
	poolIdle = 24 * time.Hour
	// fillLimit bounds how long a pool may take to be filled.
	fillLimit = time.Minute
)

// FillPool has the pool of a network in a guest hold n parked vNICs, and returns
// when they are there. Then it leaves the pool as it is: an attach that takes one
// causes none to be plugged, which would disturb a measurement.
func (s *Site) FillPool(ctx context.Context, vm, network string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	if err := s.setPool(ctx, vm, network, n, n); err != nil {
		return err
	}
	last := &brfusev1.Pool{}
	err := Until(ctx, fmt.Sprintf("%d vnics parked in vm %s for network %s", n, vm, network), func(ctx context.Context) (bool, error) {
		p, err := s.Pool(ctx, vm, network)
		if err == nil {
			last = p
		}
		return err == nil && int(p.GetParked()) == n && p.GetFilling() == 0, err
	})
	if err != nil {
		return fmt.Errorf("%w; %d are parked, the last error of the pool is %q", err, last.GetParked(), last.GetLastError())
	}
	return s.setPool(ctx, vm, network, 0, n)
}

func (s *Site) setPool(ctx context.Context, vm, network string, low, high int) error {
	cl, err := s.Client()
	if err == nil {
		_, err = cl.SetPool(ctx, &brfusev1.SetPoolRequest{
			Vm: vm, Network: network, Low: uint32(low), High: uint32(high), Idle: durationpb.New(poolIdle),
		})
	}
	if err != nil {
		return fmt.Errorf("set the pool of network %s in vm %s to %d-%d: %w", network, vm, low, high, err)
	}
	return nil
}

// Pool returns the pool of a network in a guest as it is.
func (s *Site) Pool(ctx context.Context, vm, network string) (*brfusev1.Pool, error) {
	cl, err := s.Client()
	if err != nil {
		return nil, err
	}
	res, err := cl.ListPools(ctx, &brfusev1.ListPoolsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	for _, p := range res.GetPools() {
		if p.GetVm() == vm && p.GetNetwork() == network {
			return p, nil
		}
	}
	return nil, fmt.Errorf("network %s has no pool in vm %s", network, vm)
}
