package fabric

import (
	"context"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Known is a hypervisor with what the store says of its state.
type Known struct {
	Record
	Alive bool
}

// Hypervisors returns all in the order of their names.
func Hypervisors(ctx context.Context, s store.Store) ([]Known, error) {
	var list []Known
	err := s.View(ctx, func(tx store.ReadTx) error {
		records, err := tx.Scan(HypervisorPrefix, 0)
		if err != nil {
			return err
		}
		live, err := tx.Scan(AlivePrefix, 0)
		if err != nil {
			return err
		}
		alive := make(map[string]bool, len(live))
		for _, it := range live {
			alive[strings.TrimPrefix(it.Key, AlivePrefix)] = true
		}
		list = make([]Known, len(records))
		for i, it := range records {
			r, err := decode[Record](it)
			if err != nil {
				return err
			}
			list[i] = Known{Record: r, Alive: alive[r.Name]}
		}
		return nil
	})
	return list, err
}

// Find returns one, and whether there is such a one.
func Find(tx store.ReadTx, name string) (Record, bool, error) {
	it, err := tx.Get(HypervisorPrefix + name)
	if err != nil || !it.Exists() {
		return Record{}, false, err
	}
	r, err := decode[Record](it)
	return r, true, err
}

// State returns [vnic.HypervisorAlive], [vnic.HypervisorDead] or [vnic.HypervisorReleased].
func (k Known) State() string {
	switch {
	case k.Released:
		return vnic.HypervisorReleased
	case k.Alive:
		return vnic.HypervisorAlive
	}
	return vnic.HypervisorDead
}
