package ipam

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// MACLease is a MAC that is held.
type MACLease struct {
	MAC   vnic.MAC
	Owner Owner
}

// macTries bounds the search for a free random MAC: with 46 random bits, a
// second try is as good as never needed.
const macTries = 16

// TakeMAC leases the wanted MAC, or a random one when it is zero. The error is
// [vnic.ErrAddressTaken] or one of the store.
func (p *Pool) TakeMAC(tx store.Tx, owner Owner, want vnic.MAC) (vnic.MAC, error) {
	b, err := json.Marshal(owner)
	if err != nil {
		return vnic.MAC{}, err
	}
	for range macTries {
		m := want
		if m.IsZero() {
			m = vnic.NewMAC()
		}
		it, err := tx.Get(macPrefix + m.String())
		switch {
		case err != nil:
			return vnic.MAC{}, err
		case !it.Exists():
			return m, tx.Put(it.Key, b)
		case !want.IsZero():
			o, err := decodeOwner(it)
			if err != nil {
				return vnic.MAC{}, err
			}
			return vnic.MAC{}, &vnic.TakenError{
				What: "mac " + m.String(), Why: "is that of " + o.String() + "; choose another, or detach that one", Err: vnic.ErrAddressTaken,
			}
		}
	}
	return vnic.MAC{}, errors.New("no free random mac: is the system's source of random bytes broken?")
}

// FreeMAC gives back a MAC of the owner. That it holds no such is no error.
func (p *Pool) FreeMAC(tx store.Tx, owner Owner, m vnic.MAC) error {
	it, err := tx.Get(macPrefix + m.String())
	if err != nil || !it.Exists() {
		return err
	}
	if o, err := decodeOwner(it); err != nil || o != owner {
		return err
	}
	return tx.Delete(it.Key)
}

// MACs returns all leased MACs.
func (p *Pool) MACs(tx store.ReadTx) ([]MACLease, error) {
	items, err := tx.Scan(macPrefix, 0)
	if err != nil {
		return nil, err
	}
	leases := make([]MACLease, len(items))
	for i, it := range items {
		if leases[i].MAC, err = vnic.ParseMAC(it.Key[len(macPrefix):]); err != nil {
			return nil, fmt.Errorf("decode %s: %w", it.Key, err)
		}
		if leases[i].Owner, err = decodeOwner(it); err != nil {
			return nil, err
		}
	}
	return leases, nil
}

func decodeOwner(it store.Item) (Owner, error) {
	var o Owner
	if err := json.Unmarshal(it.Value, &o); err != nil {
		return o, fmt.Errorf("decode %s: %w", it.Key, err)
	}
	return o, nil
}
