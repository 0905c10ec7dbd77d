package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

const (
	changeSeries = "change/" // and how many endpoints there are
	changeRounds = 20
	// inRound is how many changes are made in a round, one after the other: a round is
	// one sample, of their median.
	inRound = 200
	// seedAtOnce is how many endpoints one transaction puts.
	seedAtOnce = 1000
)

var changeSizes = []int{1_000, 10_000, 100_000}

// changes measures how long it takes from the commit of a change of one endpoint until
// the half is told, in fabrics of several sizes, side by side. The store is in memory:
// etcd's time is measured elsewhere.
func changes(ctx context.Context, rec *samples.Recorder) (err error) {
	var beds []*changeBed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	for _, size := range changeSizes {
		b, err := newChangeBed(ctx, size)
		if err != nil {
			return err
		}
		beds = append(beds, b)
	}
	for round := range changeRounds + 1 {
		rec.Begin(round)
		if round%2 == 1 {
			slices.Reverse(beds)
		}
		for _, b := range beds {
			took := make([]time.Duration, inRound)
			for i := range took {
				if took[i], err = b.change(ctx, round*inRound+i); err != nil {
					return err
				}
			}
			slices.Sort(took)
			rec.Add(changeName(b.size), at(took, 0.5))
		}
	}
	return nil
}

func changeName(size int) string { return fmt.Sprint(changeSeries, size) }

// changeBed is a fabric over a store of its own.
type changeBed struct {
	size   int
	store  *memstore.Store
	fabric *fabric.Fabric
	told   chan time.Time // has room for one
}

func newChangeBed(ctx context.Context, size int) (*changeBed, error) {
	b := &changeBed{size: size, store: memstore.New(), told: make(chan time.Time, 1)}
	for from := 0; from < size; from += seedAtOnce {
		_, err := b.store.Update(ctx, func(tx store.Tx) error {
			for i := from; i < min(from+seedAtOnce, size); i++ {
				if err := fabric.PutEndpoint(tx, endpoint(i, false)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	b.fabric = fabric.Start(fabric.Config{Store: b.store, Self: "follower", Overlay: b}) //nolint:contextcheck // Close ends it
	if err := b.fabric.Use(ctx, network); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *changeBed) close() error { return errors.Join(b.fabric.Close(), b.store.Close()) }

// endpoint returns one of a hypervisor of a hundred pods.
func endpoint(i int, ready bool) vnic.Endpoint {
	var low [8]byte
	binary.BigEndian.PutUint64(low[:], uint64(i)) //nolint:gosec // not negative
	v4 := network.Subnets[0].Addr().As4()
	v6 := network.Subnets[1].Addr().As16()
	copy(v6[8:], low[:])
	v4[1], v4[2], v4[3] = v4[1]|low[5], low[6], low[7]
	h := hypervisor{name: fmt.Sprintf("hypervisor-%04d", i/100), nowhere: nowhere{i / 100}}
	return vnic.Endpoint{
		ID: vnic.ID(fmt.Sprintf("%08x", i)), Network: network.Name, Hypervisor: h.name, Underlay: h.underlay(),
		Key: h.key(podName(i % 100)), MAC: vnic.MAC{2, 1, low[4], low[5], low[6], low[7]},
		Addresses: []netip.Addr{netip.AddrFrom4(v4), netip.AddrFrom16(v6)}, Ready: ready,
	}
}

// change makes the change of that number, each of another endpoint until all have had
// one, and returns how long it takes until the half is told.
func (b *changeBed) change(ctx context.Context, number int) (time.Duration, error) {
	e := endpoint(number%b.size, number/b.size%2 == 0)
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	start := time.Now()
	if _, err := b.store.Update(ctx, func(tx store.Tx) error { return fabric.PutEndpoint(tx, e) }); err != nil {
		return 0, err
	}
	select {
	case at := <-b.told:
		return at.Sub(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait until a change among %d endpoints is declared: %w", b.size, ctx.Err())
	}
}

// ReplaceStations implements [fabric.Overlay], as the methods below do.
func (b *changeBed) ReplaceStations(context.Context, string, []vnic.Station) error { return nil }

func (b *changeBed) SetStations(context.Context, string, []vnic.Station) error {
	b.told <- time.Now()
	return nil
}

func (b *changeBed) RemoveStations(context.Context, string, []vnic.MAC) error { return nil }
