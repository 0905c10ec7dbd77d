// Package netpath finds every device, queueing discipline, hook and network
// namespace that a packet of a pod crosses on its way to the wire, with their
// counters.
//
// [Local] walks one machine: in a guest from the pod's interface to the VM's NIC,
// on a hypervisor from a tap to what it is sent out by. It asks the kernel at each
// step what is next: the other end of a veth and the namespace that it is in, the
// bridge of a port, the device that a VXLAN sends by, the route. It changes nothing.
//
// Hops are in the order of a packet that leaves the pod. What only one that comes in
// meets has the direction [In], and stands where a reader from the wire to the pod
// meets it. What is forwarded crosses prerouting, forward and postrouting in this
// order both ways.
//
// Paths travel as JSON. One from a guest is read by [Decode], which bounds it and
// makes its texts fit to be shown.
package netpath
