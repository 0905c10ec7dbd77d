package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// MACLease is a MAC that is held.
type MACLease struct {
	MAC   vnic.MAC
	Owner Owner
}

// macRecord is what is stored under a MAC.
type macRecord struct {
	Owner
	// Hypervisor leased it; empty when the store is not shared.
	Hypervisor string `json:"hypervisor,omitempty"`
}

// macTries bounds the search for a free random MAC: with 46 random bits, a
// second try is as good as never needed.
const macTries = 16

// TakeMAC leases the wanted MAC, or a random one when it is zero. The error is
// [vnic.ErrAddressTaken] or one of the store.
func (p *Pool) TakeMAC(tx store.Tx, owner Owner, want vnic.MAC) (vnic.MAC, error) {
	for range macTries {
		m := want
		if m.IsZero() {
			m = vnic.NewMAC()
		}
		unused, err := store.Unused(tx, macPrefix+m.String())
		switch {
		case err != nil:
			return vnic.MAC{}, err
		case unused:
			return m, p.putMAC(tx, owner, m)
		case !want.IsZero():
			return vnic.MAC{}, macTaken(tx, m)
		}
	}
	return vnic.MAC{}, errors.New("no free random mac: is the system's source of random bytes broken?")
}

// macTaken returns an error that says whose a MAC is.
func macTaken(tx store.Tx, m vnic.MAC) error {
	it, err := tx.Get(macPrefix + m.String())
	if err != nil {
		return err
	}
	r, err := decodeMAC(it)
	if err != nil {
		return err
	}
	return &vnic.TakenError{
		What: "mac " + m.String(), Why: "is that of " + r.String() + on(r.Hypervisor) + "; choose another, or detach that one",
		Err: vnic.ErrAddressTaken,
	}
}

// putMAC writes a MAC, and when the store is shared, that this hypervisor has it.
func (p *Pool) putMAC(tx store.Tx, owner Owner, m vnic.MAC) error {
	b, err := json.Marshal(macRecord{owner, p.hypervisor})
	if err != nil {
		return err
	}
	if p.hypervisor != "" {
		if err := tx.Put(ownerMACKey(owner.Key, m), b); err != nil {
			return err
		}
	}
	return tx.Put(macPrefix+m.String(), b)
}

// FreeMAC gives back a MAC of the owner. That it holds no such is no error.
func (p *Pool) FreeMAC(tx store.Tx, owner Owner, m vnic.MAC) error {
	it, err := tx.Get(macPrefix + m.String())
	if err != nil || !it.Exists() {
		return err
	}
	if r, err := decodeMAC(it); err != nil || r.Owner != owner {
		return err
	}
	if p.hypervisor != "" {
		if err := tx.Delete(ownerMACKey(owner.Key, m)); err != nil {
			return err
		}
	}
	return tx.Delete(it.Key)
}

// MACs returns all leased MACs; when the store is shared, those of this hypervisor.
func (p *Pool) MACs(tx store.ReadTx) ([]MACLease, error) {
	prefix := macPrefix
	if p.hypervisor != "" {
		prefix = ownerPfx
	}
	items, err := tx.Scan(prefix, 0)
	if err != nil {
		return nil, err
	}
	var leases []MACLease
	for _, it := range items {
		m, isMAC := macOf(it.Key)
		switch {
		case !isMAC && p.hypervisor != "":
			continue // it is that of a lease
		case !isMAC:
			return nil, fmt.Errorf("decode %s: it ends with no mac: %w", it.Key, store.ErrDamaged)
		}
		r, err := decodeMAC(it)
		if err != nil {
			return nil, err
		}
		leases = append(leases, MACLease{MAC: m, Owner: r.Owner})
	}
	return leases, nil
}

// macOf returns the MAC that a key ends with, and whether it does.
func macOf(key string) (vnic.MAC, bool) {
	m, err := vnic.ParseMAC(key[strings.LastIndexByte(key, '/')+1:])
	return m, err == nil
}

func decodeMAC(it store.Item) (macRecord, error) {
	var r macRecord
	if err := decode(it, &r); err != nil {
		return r, err
	}
	return r, nil
}
