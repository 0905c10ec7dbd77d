package orchestrator

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Keys in the store, beside those of package ipam. Neither a VM's name nor an
// interface's has a '/'.
const (
	attachmentPrefix = "attachment/" // ID: a vnic.Attachment
	keyPrefix        = "key/"        // VM/POD/INTERFACE: the ID
	networkPrefix    = "network/"    // NAME: a networkRecord
	vmPrefix         = "vm/"         // NAME: a vmRecord
	portPrefix       = "port/"       // PROTOCOL/PORT/ADDRESS of the hypervisor: the ID of who published it
)

func attachmentKey(id vnic.ID) string { return attachmentPrefix + string(id) }

// networkRecord is a network as it is stored. One that is being removed takes
// no new attachments.
type networkRecord struct {
	vnic.Network
	Removing bool `json:"removing,omitempty"`
}

// vmRecord is a VM as it is stored.
type vmRecord struct {
	vnic.VM
	Removing bool `json:"removing,omitempty"`
	// Migrating is where the VM is being moved to, nil when it isn't.
	Migrating *vnic.VM `json:"migrating,omitempty"`
}

// record is an attachment as it is stored, with the revision that it was read or
// written at.
type record struct {
	vnic.Attachment
	// Publishing says that the host half may have other ports than the request:
	// some of Former, which stay taken as long.
	Publishing bool               `json:"publishing,omitempty"`
	Former     []vnic.PortMapping `json:"former,omitempty"`

	// Parking says that the vNIC of an attachment in detaching is to be parked.
	Parking bool `json:"parking,omitempty"`

	rev int64
	// untouched says that the host half was surely not asked to plug it yet.
	untouched bool
	// spoiled says that the vNIC is known to be unfit for a pool.
	spoiled bool
	// silent says that the guest's agent did not answer just now.
	silent bool
	// session is that with the agent which retrieved the vNIC.
	session string
	// luck is what the attach, or the detach, had with its pool.
	luck luck
}

func (r record) key() vnic.Key     { return r.Request.Key }
func (r record) owner() ipam.Owner { return ipam.Owner{ID: r.ID, Key: r.key()} }

// pool returns the pool that the attachment's vNIC may be of.
func (r record) pool() poolID { return poolID{r.Request.VM, r.Request.Network} }

// held returns the ports that are taken for the attachment.
func (r record) held() []vnic.PortMapping { return slices.Concat(r.Request.Ports, r.Former) }

// load reads the value of key into v and returns its revision, 0 when there is none.
func load(tx store.ReadTx, key string, v any) (int64, error) {
	it, err := tx.Get(key)
	if err != nil || !it.Exists() {
		return 0, err
	}
	return it.Rev, decode(it, v)
}

func save(tx store.Tx, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return tx.Put(key, b)
}

func decode(it store.Item, v any) error {
	if err := json.Unmarshal(it.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w", it.Key, err)
	}
	return nil
}

// all reads every value whose key begins with prefix.
func all[T any](tx store.ReadTx, prefix string) ([]T, error) {
	items, err := tx.Scan(prefix, 0)
	if err != nil {
		return nil, err
	}
	values := make([]T, len(items))
	for i, it := range items {
		if err := decode(it, &values[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// read returns the attachment of that id, nil when there is none.
func (o *Orchestrator) read(ctx context.Context, id vnic.ID) (*record, error) {
	var r record
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		r.rev, err = load(tx, attachmentKey(id), &r)
		return err
	})
	if err != nil || r.rev == 0 {
		return nil, err
	}
	return &r, nil
}

// readKey returns the attachment of that key, nil when there is none.
func (o *Orchestrator) readKey(ctx context.Context, k vnic.Key) (*record, error) {
	var r record
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		it, err := tx.Get(keyPrefix + k.String())
		if err != nil || !it.Exists() {
			return err
		}
		r.rev, err = load(tx, attachmentKey(vnic.ID(it.Value)), &r)
		return err
	})
	if err != nil || r.rev == 0 {
		return nil, err
	}
	return &r, nil
}

// records returns the attachments of a VM, of all VMs when vm is empty.
func (o *Orchestrator) records(ctx context.Context, vm string) ([]record, error) {
	return recordsOf(ctx, o.cfg.Store, vm)
}

func recordsOf(ctx context.Context, db store.Store, vm string) ([]record, error) {
	var list []record
	err := db.View(ctx, func(tx store.ReadTx) error {
		items, err := attachmentItems(tx, vm)
		if err != nil {
			return err
		}
		list = make([]record, len(items))
		for i, it := range items {
			list[i].rev = it.Rev
			if err := decode(it, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// attachmentItems reads the attachments of one VM by way of the keys' index.
func attachmentItems(tx store.ReadTx, vm string) ([]store.Item, error) {
	if vm == "" {
		return tx.Scan(attachmentPrefix, 0)
	}
	keys, err := tx.Scan(keyPrefix+vm+"/", 0)
	if err != nil {
		return nil, err
	}
	items := make([]store.Item, 0, len(keys))
	for _, k := range keys {
		it, err := tx.Get(attachmentPrefix + string(k.Value))
		if err != nil {
			return nil, err
		}
		if it.Exists() {
			items = append(items, it)
		}
	}
	return items, nil
}

// write stores r as it is now. Nobody else may have written it meanwhile.
func (o *Orchestrator) write(ctx context.Context, r *record) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	r.Updated = time.Now()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode %s: %w", attachmentKey(r.ID), err)
	}
	rev, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := store.Swap(tx, attachmentKey(r.ID), r.rev, b); err != nil {
			return err
		}
		if r.Phase != vnic.PhaseReady && r.Phase != vnic.PhaseDetaching {
			return nil // nothing that concerns others
		}
		return o.announce(tx, r)
	})
	if err != nil {
		return fmt.Errorf("record phase %s: %w", r.Phase, err)
	}
	r.rev = rev
	return nil
}

// erase deletes r and gives back what it holds, in one transaction. When r is to
// be parked, it parks its vNIC; if its pool is full by now or gone, it returns
// false and has deleted nothing.
func (o *Orchestrator) erase(ctx context.Context, r *record) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	_, err = o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		done = true
		if r.Parking {
			done, err = o.parkRecord(tx, r)
		} else {
			err = o.dropVNIC(tx, r)
		}
		if err != nil || !done {
			return err
		}
		it, err := tx.Get(keyPrefix + r.key().String())
		if err != nil {
			return err
		}
		if string(it.Value) == string(r.ID) {
			if err := tx.Delete(it.Key); err != nil {
				return err
			}
		}
		return cmp.Or(tx.Delete(attachmentKey(r.ID)), o.delist(tx, r), o.pool.Free(tx, r.owner()), dropPorts(tx, r.ID, r.held()))
	})
	if err != nil {
		return false, fmt.Errorf("release leases: %w", err)
	}
	return done, nil
}
