package fused

import (
	"context"
	"fmt"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

// FillPool has the network's pool in the guest hold n parked vNICs, and returns
// when they are there. No others are plugged while attaches take some of them.
// From then on, an attach that took none is an error.
func (f *Fused) FillPool(ctx context.Context, n int) error {
	f.pooled.Store(true)
	if err := f.site.FillPool(ctx, f.vm, f.network, n); err != nil {
		return f.explain(err)
	}
	return nil
}

// CheckPool tells whether n vNICs are parked and none is in use.
func (f *Fused) CheckPool(ctx context.Context, n int) error {
	p, err := f.site.Pool(ctx, f.vm, f.network)
	if err != nil {
		return err
	}
	if p.GetParked() != uint32(n) || p.GetInUse() != 0 || p.GetFilling() != 0 {
		return fmt.Errorf("pool of network %s: %d vnics parked, %d in use, %d being plugged, last error %q; not %d, 0, 0",
			f.network, p.GetParked(), p.GetInUse(), p.GetFilling(), p.GetLastError(), n)
	}
	return nil
}

// RemovePool takes the pool away.
func (f *Fused) RemovePool(ctx context.Context) error {
	f.pooled.Store(false)
	if _, err := f.client.RemovePool(ctx, &brfusev1.RemovePoolRequest{Vm: f.vm, Network: f.network}); err != nil {
		return f.explain(fmt.Errorf("remove the pool of network %s: %w", f.network, err))
	}
	return nil
}

// checkDevice tells whether an attachment has its vNIC from where it should.
func (f *Fused) checkDevice(a *brfusev1.Attachment) error {
	warm := a.GetDevice() != "" && a.GetDevice() != a.GetId()
	if want := f.pooled.Load(); warm != want {
		return fmt.Errorf("attach pod %s: it has vnic %q, by the pool: %t; it should be %t", a.GetPod(), a.GetDevice(), warm, want)
	}
	return nil
}
