package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Keys in the store of what belongs to pools.
const (
	poolPrefix   = "pool/" // VM/NETWORK: a poolRecord
	pooledPrefix = "vnic/" // ID: a pooled
	idlePrefix   = "idle/" // VM/NETWORK/STATE/ID: the ID, of those that no attachment has
)

// poolID names a pool.
type poolID struct{ vm, network string }

func (k poolID) String() string { return k.vm + "/" + k.network }

func (k poolID) idle(s pooledState) string { return idlePrefix + k.String() + "/" + string(s) + "/" }

// poolRecord is a pool as it is stored, with the MTU of its vNICs: the network's.
type poolRecord struct {
	vnic.Pool
	MTU int `json:"mtu"`
}

func (p poolRecord) id() poolID { return poolID{p.VM, p.Network} }

// pooledState is what a vNIC of a pool is there for.
type pooledState string

const (
	filling  pooledState = "filling"  // being plugged, or looked after; its lock is held
	parked   pooledState = "parked"   // ready to be taken
	taken    pooledState = "taken"    // an attachment's
	draining pooledState = "draining" // about to be unplugged
)

// pooled is a vNIC of a pool as it is stored: from before it is plugged until it
// is unplugged, also while an attachment has it.
type pooled struct {
	ID      vnic.ID     `json:"id"`
	VM      string      `json:"vm"`
	Network string      `json:"network"`
	State   pooledState `json:"state"`
	// Attachment has it, in state taken.
	Attachment vnic.ID  `json:"attachment,omitempty"`
	MAC        vnic.MAC `json:"mac"`
	MTU        int      `json:"mtu"`
	Queues     int      `json:"queues"`
	Slot       string   `json:"slot,omitempty"`
	GuestPCI   string   `json:"guestPCI,omitempty"`
	// Session is that with the agent which made the vNIC like new.
	Session string    `json:"session,omitempty"`
	Updated time.Time `json:"updated"`

	rev int64 // that it was read or written at
}

func pooledKey(id vnic.ID) string { return pooledPrefix + string(id) }

func (p pooled) pool() poolID      { return poolID{p.VM, p.Network} }
func (p pooled) idleKey() string   { return p.pool().idle(p.State) + string(p.ID) }
func (p pooled) owner() ipam.Owner { return ipam.Owner{ID: p.ID, Key: vnic.Key{VM: p.VM}} }

// move is what the guest half is told of a vNIC that no pod has: as of one that
// is handed over, it is in the guest's first namespace.
func (p pooled) move() vnic.Move {
	return vnic.Move{ID: p.ID, MAC: p.MAC, Interface: p.ID.LinkName(), MTU: p.MTU, Queues: p.Queues, Handover: true}
}

// fits says whether the vNIC is as its pool's are to be.
func (p pooled) fits(r poolRecord) bool { return p.Queues == r.Queues && p.MTU == r.MTU }

// put stores p in another state than it was loaded in, from "" when it is new.
func (p *pooled) put(tx store.Tx, state pooledState) error {
	if p.State != "" && p.State != taken {
		if err := tx.Delete(p.idleKey()); err != nil {
			return err
		}
	}
	p.State, p.Updated = state, time.Now()
	if state != taken {
		p.Attachment = ""
		if err := tx.Put(p.idleKey(), []byte(p.ID)); err != nil {
			return err
		}
	}
	return save(tx, pooledKey(p.ID), p)
}

// forget deletes the record of p and gives its MAC back.
func (o *Orchestrator) forget(tx store.Tx, p pooled) error {
	if p.State != taken {
		if err := tx.Delete(p.idleKey()); err != nil {
			return err
		}
	}
	if err := tx.Delete(pooledKey(p.ID)); err != nil {
		return err
	}
	return o.pool.FreeMAC(tx, p.owner(), p.MAC)
}

func loadPooled(tx store.ReadTx, id vnic.ID) (p pooled, err error) {
	p.rev, err = load(tx, pooledKey(id), &p)
	return p, err
}

// readPooled returns the vNIC of a pool of that id, nil when there is none.
func (o *Orchestrator) readPooled(ctx context.Context, id vnic.ID) (*pooled, error) {
	var p pooled
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		p, err = loadPooled(tx, id)
		return err
	})
	if err != nil || p.rev == 0 {
		return nil, err
	}
	return &p, nil
}

// idle returns the vNICs of a VM's pools that no attachment has.
func (o *Orchestrator) idle(ctx context.Context, vm string) ([]pooled, error) {
	var list []pooled
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = idle(tx, idlePrefix+vm+"/", 0)
		return err
	})
	return list, err
}

// idle returns the first limit vNICs whose keys in the index begin with prefix.
func idle(tx store.ReadTx, prefix string, limit int) ([]pooled, error) {
	items, err := tx.Scan(prefix, limit)
	if err != nil {
		return nil, err
	}
	list := make([]pooled, len(items))
	for i, it := range items {
		if list[i], err = loadPooled(tx, vnic.ID(it.Value)); err != nil {
			return nil, err
		}
		if list[i].rev == 0 {
			return nil, fmt.Errorf("%s: there is no such vnic: %w", it.Key, store.ErrDamaged)
		}
	}
	return list, nil
}

// firstIdle returns the first vNIC that is fit of those whose keys in the index begin
// with prefix, nil when there is none. It reads no more than it needs, but for one.
func firstIdle(tx store.ReadTx, prefix string, fit func(pooled) bool) (*pooled, error) {
	for _, limit := range []int{1, 0} { // nearly always the first one is
		list, err := idle(tx, prefix, limit)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(list, fit); i >= 0 {
			return &list[i], nil
		}
		if len(list) == 0 {
			break
		}
	}
	return nil, nil
}

// stock counts the vNICs of a pool that are parked or about to be, up to limit.
func (k poolID) stock(tx store.ReadTx, limit int) (int, error) {
	n := 0
	for _, s := range []pooledState{parked, filling} {
		items, err := tx.Scan(k.idle(s), limit)
		if err != nil {
			return 0, err
		}
		n += len(items)
	}
	return n, nil
}

// readPool returns a pool; found is false when there is none.
func readPool(tx store.ReadTx, k poolID) (p poolRecord, found bool, err error) {
	rev, err := load(tx, poolPrefix+k.String(), &p)
	return p, rev != 0, err
}

// errTaken is returned by shift when another has changed the vNIC's record.
var errTaken = errors.New("vnic changed hands")

// shift stores p in another state with what fn does, unless its record has
// changed since p was read.
func (o *Orchestrator) shift(ctx context.Context, p *pooled, state pooledState, fn func(store.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Deadlines.Store)
	defer cancel()
	var next pooled
	rev, err := o.cfg.Store.Update(ctx, func(tx store.Tx) error {
		now, err := loadPooled(tx, p.ID)
		if err != nil {
			return err
		}
		if now.rev != p.rev {
			return errTaken
		}
		if fn != nil {
			if err := fn(tx); err != nil {
				return err
			}
		}
		next = *p
		return next.put(tx, state)
	})
	if err != nil {
		return fmt.Errorf("record vnic %s as %s: %w", p.ID, state, err)
	}
	*p = next
	p.rev = rev
	return nil
}

// usedID tells whether an attachment or a vNIC has an id.
func (o *Orchestrator) usedID(tx store.ReadTx, id vnic.ID) (bool, error) {
	keys := []string{attachmentKey(id), pooledKey(id)}
	if o.cfg.Cluster != nil {
		keys = append(keys, fabric.IDPrefix+string(id))
	}
	for _, key := range keys {
		if unused, err := store.Unused(tx, key); err != nil || !unused {
			return true, err
		}
	}
	return false, nil
}

// owner returns the VM of the attachment or the pool that a vNIC is of.
func (o *Orchestrator) owner(ctx context.Context, id vnic.ID) (vm string, known bool, err error) {
	err = o.cfg.Store.View(ctx, func(tx store.ReadTx) error {
		var r record
		rev, err := load(tx, attachmentKey(id), &r)
		if err != nil || rev != 0 {
			vm, known = r.Request.VM, rev != 0
			return err
		}
		p, err := loadPooled(tx, id)
		vm, known = p.VM, p.rev != 0
		return err
	})
	return vm, known, err
}

// holder returns the attachment that has a vNIC, nil when none has.
func (o *Orchestrator) holder(ctx context.Context, id vnic.ID) (*record, error) {
	var r record
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		if r.rev, err = load(tx, attachmentKey(id), &r); err != nil || r.rev != 0 {
			return err
		}
		p, err := loadPooled(tx, id)
		if err != nil || p.State != taken {
			return err
		}
		r.rev, err = load(tx, attachmentKey(p.Attachment), &r)
		return err
	})
	if err != nil || r.rev == 0 || r.VNIC() != id {
		return nil, err
	}
	return &r, nil
}

// poolsOf returns the pools whose keys begin with a prefix, such as a VM's name
// with a slash.
func (o *Orchestrator) poolsOf(ctx context.Context, prefix string) ([]poolRecord, error) {
	var list []poolRecord
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		list, err = all[poolRecord](tx, poolPrefix+prefix)
		return err
	})
	return list, err
}

// allPooled returns all vNICs of pools, also those that attachments have.
func allPooled(tx store.ReadTx) ([]pooled, error) {
	items, err := tx.Scan(pooledPrefix, 0)
	if err != nil {
		return nil, err
	}
	list := make([]pooled, len(items))
	for i, it := range items {
		list[i].rev = it.Rev
		if err := decode(it, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}
