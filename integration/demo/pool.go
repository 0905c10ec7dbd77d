package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
)

// rounds is how many pods the demo times, without and with a pool.
const rounds = 5

// timing is how long a pod's attach and detach took.
type timing struct{ attach, detach time.Duration }

// pool has some pods come and go without a pool, and then with one.
func (d *show) pool(ctx context.Context) error {
	say("A pool keeps vNICs plugged and parked, for attaches to take")
	cold, err := d.time(ctx, "cold")
	if err != nil {
		return err
	}
	if err := d.brfuse(ctx, "pool", "set", "--vm", "vm1", "--network", "blue", "--low", "2", "--high", "4"); err != nil {
		return err
	}
	if err := d.awaitPool(ctx, 2); err != nil {
		return err
	}
	warm, err := d.time(ctx, "warm")
	if err != nil {
		return err
	}
	fmt.Printf("\n%-6s %22s %22s\n", "", "plugged for the pod", "from the pool")
	fmt.Printf("%-6s %10s %11s %10s %11s   in ms\n", "pod", "attach", "detach", "attach", "detach")
	for i := range cold {
		row(strconv.Itoa(i+1), cold[i], warm[i])
	}
	row("median", median(cold), median(warm))
	fmt.Println()
	if err := d.brfuse(ctx, "pool", "list"); err != nil {
		return err
	}
	return d.brfuse(ctx, "pool", "rm", "--vm", "vm1", "--network", "blue")
}

func row(name string, cold, warm timing) {
	fmt.Printf("%-6s %10.0f %11.0f %10.0f %11.0f\n", name, ms(cold.attach), ms(cold.detach), ms(warm.attach), ms(warm.detach))
}

// median returns the medians of both times.
func median(all []timing) timing {
	var attach, detach []time.Duration
	for _, x := range all {
		attach, detach = append(attach, x.attach), append(detach, x.detach)
	}
	slices.Sort(attach)
	slices.Sort(detach)
	return timing{attach[len(all)/2], detach[len(all)/2]}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// time makes pods, attaches and detaches each, and returns how long that took.
func (d *show) time(ctx context.Context, name string) (took []timing, err error) {
	cl, err := d.site.Client()
	if err != nil {
		return nil, err
	}
	for i := range rounds {
		pod := fmt.Sprintf("%s%d", name, i+1)
		if _, err := d.vm.AddPod(ctx, pod); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := cl.Attach(ctx, &brfusev1.AttachRequest{Vm: "vm1", Pod: pod}); err != nil {
			return nil, err
		}
		attached := time.Now()
		if _, err := cl.Detach(ctx, &brfusev1.DetachRequest{Vm: "vm1", Pod: pod}); err != nil {
			return nil, err
		}
		took = append(took, timing{attached.Sub(began), time.Since(attached)})
	}
	return took, nil
}

// awaitPool waits until so many vNICs are parked.
func (d *show) awaitPool(ctx context.Context, parked uint32) error {
	cl, err := d.site.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return site.Until(ctx, "a full pool", func(ctx context.Context) (bool, error) {
		res, err := cl.ListPools(ctx, &brfusev1.ListPoolsRequest{})
		if err != nil {
			return false, err
		}
		p := res.GetPools()[0]
		return p.GetParked() >= parked && p.GetFilling() == 0, nil
	})
}
