package orchestrator

import (
	"cmp"
	"fmt"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// lastVNI is the key of the identifier that was chosen last: one is not used again soon
// after its network was removed, for a hypervisor may not have heard of that yet.
const lastVNI = "vni/last"

var errNoCluster = fmt.Errorf("an overlay joins hypervisors that share a store; start brfused with --store etcd://...: %w", vnic.ErrUnsupported)

// fit checks that this store can have a network of that kind, and gives an overlay the
// largest MTU that all underlays carry.
func (o *Orchestrator) fit(tx store.ReadTx, n vnic.Network) (vnic.Network, error) {
	if n.Kind != vnic.KindOverlay {
		return n, nil
	}
	if o.cfg.Cluster == nil {
		return n, errNoCluster
	}
	given := n.MTU != 0
	items, err := tx.Scan(fabric.HypervisorPrefix, 0)
	if err != nil {
		return n, err
	}
	for _, it := range items {
		var r fabric.Record
		if err := decode(it, &r); err != nil {
			return n, err
		}
		room := r.MTU
		switch {
		case room == 0:
		case !given:
			n.MTU = min(cmp.Or(n.MTU, room), room)
		case n.MTU > room:
			return n, fmt.Errorf("mtu %d is larger than %d, which the underlay of hypervisor %s carries: %w", n.MTU, room, r.Name, vnic.ErrInvalid)
		}
	}
	if n.MTU == 0 {
		return n, fmt.Errorf("no hypervisor has an underlay; start brfused with --underlay ADDRESS: %w", vnic.ErrUnsupported)
	}
	if n.MTU < vnic.MinMTU {
		return n, fmt.Errorf("mtu %d, which the underlays leave, is less than %d: %w", n.MTU, vnic.MinMTU, vnic.ErrUnsupported)
	}
	return n, nil
}

// complement gives a new overlay an identifier that no other has.
func complement(tx store.Tx, n vnic.Network, nets []networkRecord) (vnic.Network, error) {
	if n.VNI != 0 {
		return n, nil
	}
	taken := make(map[uint32]bool, len(nets))
	for _, old := range nets {
		taken[old.VNI] = true
	}
	var last uint32
	if _, err := load(tx, lastVNI, &last); err != nil {
		return n, err
	}
	for range len(nets) + 1 {
		if last++; last > vnic.MaxVNI {
			last = 1
		}
		if !taken[last] {
			n.VNI = last
			return n, save(tx, lastVNI, last)
		}
	}
	return n, fmt.Errorf("all %d vnis are taken: %w", vnic.MaxVNI, vnic.ErrInUse)
}

// unusedElsewhere returns [vnic.ErrInUse] when another hypervisor has a vNIC of a
// network.
func (o *Orchestrator) unusedElsewhere(tx store.ReadTx, name string) error {
	if o.cfg.Cluster == nil {
		return nil
	}
	e, only, err := onlyStands(tx, name)
	if err != nil || only {
		return err
	}
	return fmt.Errorf("the network has attachments, such as %s of pod %s on hypervisor %s; detach them first: %w", e.ID, e.Pod, e.Hypervisor, vnic.ErrInUse)
}
