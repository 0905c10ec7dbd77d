package vnic

// Migration is an order to move a running VM from one hypervisor process to another
// on the same hypervisor.
type Migration struct {
	From VM // as it is registered
	To   VM // the same VM, with the sockets of the process that waits for it
	// VNICs are those that the VM has, attached or parked.
	VNICs []Plug
}
