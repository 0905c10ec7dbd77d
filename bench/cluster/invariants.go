package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Prefixes of keys that attachments have in common.
const (
	leasePrefix    = "ipam/lease/"
	macPrefix      = "ipam/mac/"
	endpointPrefix = "endpoint/"
	idPrefix       = "owner/id/"
)

// emptyLimit is how long hypervisors may take to leave the network after their last pod.
const emptyLimit = 2 * time.Minute

// checkAttached sees that the store has what all attachments have, no address twice,
// and what the hypervisors have of their own in the network, and nothing else.
func (hs fleet) checkAttached(ctx context.Context, s store.Store) error {
	var leases, endpoints, macs, ids []store.Item
	err := s.View(ctx, func(tx store.ReadTx) (err error) {
		for prefix, items := range map[string]*[]store.Item{leasePrefix: &leases, endpointPrefix: &endpoints, macPrefix: &macs, idPrefix: &ids} {
			if *items, err = tx.Scan(prefix, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	pods := 0
	owners := map[netip.Addr]vnic.ID{}
	for _, h := range hs {
		for _, a := range h.pods {
			pods++
			if len(a.Leases) != len(network.Subnets) {
				return fmt.Errorf("pod %s has addresses %v", a.Request.Key, a.Leases)
			}
			for _, p := range a.Leases {
				if other, taken := owners[p.Addr()]; taken {
					return fmt.Errorf("address %s was given to %s and %s", p.Addr(), other, a.ID)
				}
				owners[p.Addr()] = a.ID
			}
		}
	}
	if got, want := len(endpoints), pods+len(hs); got != want {
		return fmt.Errorf("store has %d endpoints of %d pods and %d hypervisors", got, pods, len(hs))
	}
	if len(macs) != pods || len(ids) != pods {
		return fmt.Errorf("store has %d macs and %d ids of %d pods", len(macs), len(ids), pods)
	}
	return checkLeases(leases, owners, len(hs))
}

// checkLeases sees that each attachment has the leases of its addresses, and each
// hypervisor one of a family.
func checkLeases(items []store.Item, owners map[netip.Addr]vnic.ID, hypervisors int) error {
	others := 0
	for _, it := range items {
		var l ipam.Lease
		if err := json.Unmarshal(it.Value, &l); err != nil {
			return fmt.Errorf("decode %s: %w", it.Key, err)
		}
		owner, pods := owners[l.Address]
		switch {
		case !pods && strings.HasPrefix(l.Owner.Key.Pod, "hypervisor-"):
			others++
		case owner != l.Owner.ID:
			return fmt.Errorf("address %s is given to %q and leased to %q", l.Address, owner, l.Owner.ID)
		}
	}
	if want := hypervisors * len(network.Subnets); others != want || len(items) != want+len(owners) {
		return fmt.Errorf("store has %d leases, %d of them of hypervisors; want %d and %d", len(items), others, want+len(owners), want)
	}
	return nil
}

// awaitEmpty waits until the store has nothing of any attachment.
func awaitEmpty(ctx context.Context, s store.Store) error {
	for _, prefix := range []string{leasePrefix, macPrefix, endpointPrefix, idPrefix} {
		if err := awaitNone(ctx, s, prefix); err != nil {
			return err
		}
	}
	return nil
}

// awaitNone waits until there is no key of a prefix.
func awaitNone(ctx context.Context, s store.Store, prefix string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, emptyLimit, fmt.Errorf("not empty after %s", emptyLimit))
	defer cancel()
	left := map[string]bool{}
	var rev int64
	err := s.View(ctx, func(tx store.ReadTx) error {
		rev = tx.Rev()
		clear(left)
		items, err := tx.Scan(prefix, 0)
		for _, it := range items {
			left[it.Key] = true
		}
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	for ev, err := range s.Watch(ctx, prefix, rev+1) {
		if err != nil {
			return fmt.Errorf("wait until all keys of %s are gone, %d are left: %w", prefix, len(left), context.Cause(ctx))
		}
		if left[ev.Key] = !ev.Deleted; ev.Deleted {
			delete(left, ev.Key)
		}
		if len(left) == 0 {
			break
		}
	}
	return nil
}
