// Package hostside is the hypervisor's half of brfuse: it gives virtual
// machines vNICs while they run, and takes them back.
//
// A [Host] is told of networks and of VMs, and then plugs: it makes a tap,
// puts a packet filter in force on it, makes it a port of the network's bridge,
// and hands its descriptors to the VM's hypervisor process, which needs no
// privilege for it. A network is a Linux bridge with the gateways' addresses on
// it; traffic that leaves the host may be masqueraded.
//
// A network may also be a bridge on a VLAN of an uplink, whose routers are out there, or
// have a macvtap of the uplink for each vNIC in place of tap and bridge: see
// [vnic.NetworkKind]. A macvtap lasts until it is deleted, as libvirt's taps do, and goes
// with its uplink. The filter is the same.
//
// # What is left when something dies
//
// A tap exists as long as a process holds one of its descriptors, and those of a
// VM of libvirt's until they are deleted. When the
// daemon dies, the hypervisor keeps its taps, the kernel keeps the filter, and
// pods keep talking; a new Host finds all of them. When a hypervisor process
// dies, its taps are gone with it. [Host.Unplug] and [Host.Plug] may be repeated
// with the same id at any time, and put right what an earlier one left halfway.
// [Host.Ports] says what is there.
//
// # What a pod can't do
//
// Only the leased MAC and addresses leave a port, in ARP and neighbour
// discovery too; answers of DHCP servers, router advertisements, redirects and
// tagged frames never do. The filter is on the host, where root in the VM can't
// reach it, and [Host.Dropped] counts what it dropped. Before a port is known, and
// after it is forgotten, nothing passes.
//
// # Published ports and bandwidth
//
// A [vnic.Plug] may publish ports of the pod on the host, and limit the pod's
// bandwidth; a repeated one changes them. The host keeps published ports from its
// other programs. They are reached by the host's addresses, also by the host and
// by pods, but not by 127.0.0.0/8 and ::1. On an external bridge they take an
// address of the host in the pod's subnet. Limits hold on the average: a pod that
// was silent may send a second's worth at once.
//
// # Parked vNICs
//
// A vNIC may stay plugged without a use: its tap is down, in no bridge, and has neither
// filter nor limits, so that nothing comes in or goes out whatever its guest does.
// [Host.Park] and [Host.Unpark] take well under a millisecond on an idle machine and
// don't ask the hypervisor. What waited in the tap is dropped; what the guest has
// taken from it by then is the guest's to forget.
//
// # What the host needs
//
// The capability CAP_NET_ADMIN (and CAP_NET_BIND_SERVICE to publish ports below
// 1024), the kernel's tun, bridge and nftables drivers
// (families bridge and inet, with address translation), and for each VM a QMP
// socket of its own, or a libvirtd that runs it: see [LibvirtChannel]. The Host turns IP forwarding on, and leaves it on. A host
// whose own forward chain drops by policy must accept what is forwarded from
// and to the bridges; brfuse doesn't override that. Names of network devices
// that begin with "brf" are brfuse's: the filter applies to all of them.
package hostside
