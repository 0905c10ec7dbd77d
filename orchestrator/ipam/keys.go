package ipam

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Keys in the store. A network's name has no '/'.
const (
	leasePrefix = "ipam/lease/"    // NETWORK/ADDRESS: a Lease
	ownerPfx    = "ipam/owner/"    // VM/POD/INTERFACE/FAMILY: the key of the lease
	nextPrefix  = "ipam/next/"     // NETWORK/FAMILY: the lowest address never leased, or "end"
	queuePrefix = "ipam/queue/"    // NETWORK/FAMILY/TIME/ADDRESS: a queued address; in the order of time
	freedPrefix = "ipam/freed/"    // NETWORK/ADDRESS: the key of the address in the queue
	macPrefix   = "ipam/mac/"      // MAC: the Owner
	reservedPfx = "ipam/reserved/" // VM/NETWORK/ADDRESS: a vnic.Reservation; its lease names the VM
)

const (
	family4 = "4"
	family6 = "6"
)

var families = []string{family4, family6}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return family4
	}
	return family6
}

func leaseKey(network string, a netip.Addr) string { return leasePrefix + network + "/" + a.String() }

func ownerPrefix(k vnic.Key) string { return ownerPfx + k.String() + "/" }

func ownerKey(k vnic.Key, a netip.Addr) string { return ownerPrefix(k) + familyOf(a) }

func nextKey(network string, a netip.Addr) string { return nextPrefix + network + "/" + familyOf(a) }

func queueOf(network string, a netip.Addr) string {
	return queuePrefix + network + "/" + familyOf(a) + "/"
}

func queueKey(network string, a netip.Addr, t time.Time) string {
	return fmt.Sprintf("%s%016x/%s", queueOf(network, a), t.UnixNano(), a)
}

func freedKey(network string, a netip.Addr) string { return freedPrefix + network + "/" + a.String() }

func reservedPrefix(vm string) string { return reservedPfx + vm + "/" }

func reservedKey(vm, network string, a netip.Addr) string {
	return reservedPrefix(vm) + network + "/" + a.String()
}
