package ipam

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// pool is one subnet of a network within a transaction.
type pool struct {
	rd      store.ReadTx
	tx      store.Tx // rd; nil for who only reads
	network string
	subnet  netip.Prefix
	gateway netip.Addr
}

// reading returns the pool of a network's subnet of that index, to be looked at.
func reading(rd store.ReadTx, n vnic.Network, i int) pool {
	return pool{rd: rd, network: n.Name, subnet: n.Subnets[i], gateway: n.Gateways[i]}
}

// writing is reading, to be changed as well.
func writing(tx store.Tx, n vnic.Network, i int) pool {
	p := reading(tx, n, i)
	p.tx = tx
	return p
}

// queued is an address that was given back.
type queued struct {
	Address  netip.Addr `json:"address"`
	Released time.Time  `json:"released"`
}

func enqueue(tx store.Tx, network string, a netip.Addr, now time.Time) error {
	b, err := json.Marshal(queued{Address: a, Released: now})
	if err != nil {
		return err
	}
	k := queueKey(network, a, now)
	if err := tx.Put(k, b); err != nil {
		return err
	}
	return tx.Put(freedKey(network, a), []byte(k))
}

// head returns the address that was given back first, nil when none was.
func (p pool) head() (*queued, error) {
	items, err := p.rd.Scan(queueOf(p.network, p.subnet.Addr()), 1)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	var q queued
	if err := decode(items[0], &q); err != nil {
		return nil, err
	}
	return &q, nil
}

// unqueue takes an address out of the queue, if it is in there.
func (p pool) unqueue(a netip.Addr) error {
	k := freedKey(p.network, a)
	it, err := p.tx.Get(k)
	if err != nil || !it.Exists() {
		return err
	}
	if err := p.tx.Delete(string(it.Value)); err != nil {
		return err
	}
	return p.tx.Delete(k)
}

// claim takes one certain address.
func (p pool) claim(a netip.Addr) error {
	switch a {
	case p.gateway:
		return addressTaken(a, "is the gateway; choose another")
	case p.subnet.Addr(), vnic.LastAddr(p.subnet):
		return fmt.Errorf("address %s is no host address of %s; choose another: %w", a, p.subnet, vnic.ErrAddressOutside)
	}
	l, found, err := p.lease(a)
	if err != nil {
		return err
	}
	switch {
	case found && l.VM != "":
		return addressTaken(a, l.holder()+"; choose another")
	case found:
		return addressTaken(a, l.holder()+"; choose another, or detach that one")
	}
	return p.unqueue(a)
}

func addressTaken(a netip.Addr, why string) error {
	return &vnic.TakenError{What: "address " + a.String(), Why: why, Err: vnic.ErrAddressTaken}
}

func (p pool) lease(a netip.Addr) (l Lease, found bool, err error) {
	it, err := p.rd.Get(leaseKey(p.network, a))
	if err != nil || !it.Exists() {
		return l, false, err
	}
	l, err = get(p.rd, it.Key)
	return l, true, err
}

// end is what the pointer holds when it has passed the whole pool.
const end = "end"

// fresh returns the lowest address that was never leased and moves the pointer
// on; the zero address when there is none.
func (p pool) fresh() (netip.Addr, error) {
	a, err := p.lowest()
	if err != nil {
		return a, err
	}
	next := end
	if a.IsValid() {
		next = a.Next().String()
	}
	return a, p.tx.Put(nextKey(p.network, p.subnet.Addr()), []byte(next))
}

// lowest returns what fresh would, and leaves the pointer alone.
func (p pool) lowest() (netip.Addr, error) {
	k := nextKey(p.network, p.subnet.Addr())
	it, err := p.rd.Get(k)
	if err != nil || string(it.Value) == end {
		return netip.Addr{}, err
	}
	a := p.subnet.Addr().Next()
	if it.Exists() {
		if a, err = netip.ParseAddr(string(it.Value)); err != nil {
			return netip.Addr{}, fmt.Errorf("decode %s: %w", k, err)
		}
	}
	for last := vnic.LastAddr(p.subnet); a != last; a = a.Next() {
		used, err := p.used(a)
		if err != nil {
			return netip.Addr{}, err
		}
		if !used {
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// used reports whether the pointer has to step over an address: the gateway,
// and those that were asked for by name, be they leased or in the queue.
func (p pool) used(a netip.Addr) (bool, error) {
	if a == p.gateway {
		return true, nil
	}
	for _, k := range []string{leaseKey(p.network, a), freedKey(p.network, a)} {
		if unused, err := store.Unused(p.rd, k); err != nil || !unused {
			return true, err
		}
	}
	return false, nil
}

func (p pool) exhausted() error {
	return fmt.Errorf("every address of %s is leased; detach a pod, or use a network with a larger subnet: %w", p.subnet, vnic.ErrPoolExhausted)
}
