// Package libvirtvm runs the virtual machines of libvirt's QEMU driver. It is the
// one place that knows go-libvirt. [VM] implements the backend seam of the host
// half.
//
// # Whose word counts
//
// libvirt's answer to a detach says that the guest was asked, and sometimes that
// it was waited for in vain. Its events say what happened, but are lost with a
// connection. So both only tell when to look: what is plugged is what the live
// XML of the domain has. A vNIC is recognised there by its alias, "ua-" and
// [vnic.ID.DeviceID], the one kind of name that libvirt lets others choose.
//
// # When libvirtd dies
//
// The domain goes on, and so does the VM: it connects again, compares the
// domain's number and UUID, and tells what was lost meanwhile. Calls wait for
// that, up to their context and ten seconds; their error then names the socket,
// and is no [vnic.ErrVMGone]. A domain that stopped, or that was started again
// meanwhile, ends the VM.
//
// A libvirtd that dies in the middle of a plug leaves a device or backend in QEMU
// that no libvirtd knows of. The VM looks for these after each connect, through
// libvirt's passage to QEMU's monitor, lists them, and removes them when
// asked to; libvirt notes such use as a taint of the domain, "custom-monitor".
//
// # What libvirt lacks
//
// It doesn't tell when the agent closes its port, since its agent events are about
// qemu-guest-agent alone: the heartbeat notices. It opens the tap by name, as root
// (or, in a session, as the user), so that the tap must persist until then: see
// [backend.TapOpener]. There is no knob for the number of interrupt vectors.
// vhost is used where libvirt finds /dev/vhost-net.
package libvirtvm
