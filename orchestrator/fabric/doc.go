// Package fabric carries what hypervisors that share a store know of each other
// into the kernel and the name servers of one of them: where the pods of its overlays
// are, what they are called, and which pods the published services lead to.
//
// The store has an [vnic.Endpoint] for each attachment, written in the attachment's
// own transactions. A [Fabric] reads them all once, follows their changes, and hands
// on differences: a change costs the same in a network of ten pods and of a hundred
// thousand. What a half could not take, and all of it now and then, is handed on whole.
//
// The Fabric doesn't decide who is alive; see [Hypervisors] for what the store says.
package fabric
