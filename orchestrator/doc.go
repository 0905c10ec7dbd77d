// Package orchestrator gives pods their vNICs: it takes requests, leases
// addresses, has the host half plug and the guest half move the vNIC, and takes
// all of it back. Package hostside is one [Host], and the link to the guests'
// agents one [Guest]; this package knows neither.
//
// # What is written down
//
// Each attachment is a record in the store with a phase, written before the side
// effects that lead to the next one:
//
//	leased     MAC and addresses are held; then Guest.Prepare and Host.Plug
//	plugged    the hypervisor has the device; then Guest.Move
//	moved      the vNIC is in the pod; then Guest.Configure, unless Move did that too
//	ready
//	detaching  Guest.Release, Host.Unplug; then the leases and the record go together
//
// So whatever a crash leaves behind is in the store or bears a name that tells
// its id. An attach that fails is undone before it returns. When a step of that
// fails too, the record stays in detaching with the reason, and the step is
// tried again, with growing pauses and whenever the VM or its agent comes back.
//
// An attachment that is handed over ends its way in the guest's first namespace:
// an engine in the guest moves it on, and says when it is no longer needed.
//
// Published ports are written down with the leases; [Orchestrator.Publish] changes
// them later, and keeps those before until the host half has the new ones. A
// reserved address is a lease of a VM, until an attachment of it takes it over.
//
// # Pools
//
// A pool keeps vNICs of a network plugged in a VM and parked: with the tap down and in no
// bridge, and in the guest like new. [Orchestrator.SetPool] says how many. Each of
// them is a record, written before it is plugged:
//
//	filling    Host.Plug and Guest.Retrieve; or it is made like new again
//	parked     ready to be taken
//	taken      an attachment's, whose Device it is; it keeps its id and MAC
//	draining   Host.Unplug; then the record goes
//
// An attach that leaves MAC, queues and MTU open takes a parked vNIC and goes straight
// to phase plugged, in the transaction of its leases; then Host.Unpark and Guest.Move
// run side by side, and ready is next. A detach asks for Host.Park, then for
// Guest.Retrieve, and gives the vNIC to the pool with the transaction
// that deletes the attachment. Only a vNIC that both say is like new is
// parked; any doubt, and it is unplugged. One that proves bad in an attach is given
// up for another. When a VM has no free slot, a parked vNIC makes room.
//
// After a crash, what is filling or draining is unplugged, and what is parked is made
// like new again, if device and tap are there and the guest has it where it belongs.
//
// # After a crash
//
// [New] and [Orchestrator.Reconcile] compare the store, the hypervisor, the
// host's taps and the guest. An attachment that wasn't ready is undone, for the
// one who asked for it has got no answer. A ready one is told to the guest again
// if its device is there, and taken back if not, or if its pod died. Devices and
// taps of no attachment are removed. Nothing is concluded from silence: a VM
// that can't be asked is left alone until the host half says what it has, or that
// it is gone.
//
// # Concurrency
//
// Operations on the same interface of the same pod in the same VM run one after
// the other; all others run side by side. A vNIC of a pool that no attachment has is
// locked by its id while something is done to it; an attach takes only parked ones,
// by the transaction alone. Who needs several locks takes them in this order: the name
// of a VM or network, the VM's reconciling, an interface, the VM's room for what is
// plugged in the background, a vNIC.
package orchestrator
