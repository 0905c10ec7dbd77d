package orchestrator

import (
	"context"
	"fmt"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
	"github.com/brfuse/brfuse/vnic"
)

// CopyStore copies the store of a single hypervisor into an empty one that others will
// share, where the hypervisor of that name finds all that it has; and returns how many
// keys there were. No Orchestrator works with either meanwhile. A copy that failed is
// begun anew with a target that was emptied.
func CopyStore(ctx context.Context, from, to store.Store, hypervisor string) (int, error) {
	if err := vnic.CheckHypervisorName(hypervisor); err != nil {
		return 0, err
	}
	n, err := store.Copy(ctx, scoped.Placed(from, fabric.Home(hypervisor), own()), to)
	if err != nil {
		return n, err
	}
	var nets []vnic.Network
	var vms []vmRecord
	mine := View(to, hypervisor)
	err = mine.View(ctx, func(tx store.ReadTx) (err error) {
		if nets, err = all[vnic.Network](tx, networkPrefix); err != nil {
			return err
		}
		vms, err = all[vmRecord](tx, vmPrefix)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("read the copy: %w", err)
	}
	for _, vm := range vms {
		_, err := to.Update(ctx, func(tx store.Tx) error { return tx.Put(fabric.VMPrefix+vm.Name, []byte(hypervisor)) })
		if err != nil {
			return n, fmt.Errorf("claim vm %s: %w", vm.Name, err)
		}
	}
	return n, ipam.New(ipam.Options{Hypervisor: hypervisor}).Adopt(ctx, mine, nets)
}
