package fabric

import (
	"encoding/json"
	"fmt"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Keys in the store that all hypervisors share. Names have no '/'.
const (
	EndpointPrefix   = "endpoint/"   // NETWORK/ID: a vnic.Endpoint
	NetworkPrefix    = "network/"    // NAME: a vnic.Network, and whether it is being removed
	ServicePrefix    = "service/"    // NAME: a vnic.Service
	HypervisorPrefix = "hypervisor/" // NAME: a Record
	UnderlayPrefix   = "underlay/"   // address: the name of the hypervisor that has it
	AlivePrefix      = "alive/"      // NAME: held by a lease of the hypervisor's daemon
	VMPrefix         = "owner/vm/"   // NAME of a VM: the hypervisor's name
	IDPrefix         = "owner/id/"   // ID of an attachment: the hypervisor's name
	HomePrefix       = "on/"         // NAME/...: keys of the hypervisor's own
)

// Home returns the prefix of a hypervisor's own keys.
func Home(hypervisor string) string { return HomePrefix + hypervisor + "/" }

// EndpointKey returns the key of an endpoint.
func EndpointKey(network string, id vnic.ID) string {
	return EndpointPrefix + network + "/" + string(id)
}

// Record is a hypervisor as it is stored.
type Record struct {
	vnic.Hypervisor
	// Released says that it was given up as dead: what it held is others' to take. Its
	// daemon takes that back when it returns.
	Released bool `json:"released,omitempty"`
	// Emptied says that nothing is left in the store of what it held when it was released.
	Emptied bool `json:"emptied,omitempty"`
}

// PutEndpoint stores an endpoint.
func PutEndpoint(tx store.Tx, e vnic.Endpoint) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode endpoint %s: %w", e.ID, err)
	}
	return tx.Put(EndpointKey(e.Network, e.ID), b)
}

// decode reads an item's value.
func decode[T any](it store.Item) (v T, err error) {
	if err := json.Unmarshal(it.Value, &v); err != nil {
		return v, fmt.Errorf("decode %s: %w", it.Key, err)
	}
	return v, nil
}
