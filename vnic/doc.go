// Package vnic says what a vNIC, a network and an attachment are: their types,
// identifiers, derived device names, phases, validation and errors. Every other
// package of brfuse speaks in these types.
//
// A vNIC is a virtio network device that a hypervisor plugs into a virtual
// machine for one pod. An [Attachment] is the record of one vNIC from the
// moment it is asked for until it is gone. Its identity on the wire and in
// both kernels is its MAC and PCI address, never an interface name; names of
// host devices derive from the attachment's [ID], so that what a crash leaves
// behind can be recognised by its name alone.
//
// The package depends on the standard library only. Its functions are pure,
// but for those that read random bytes, and safe for concurrent use.
package vnic
