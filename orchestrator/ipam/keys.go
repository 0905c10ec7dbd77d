package ipam

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Keys in the store. A network's name has no '/'. Those of owner, next, queue,
// freed and reserved are a hypervisor's own, the others are shared by all.
const (
	leasePrefix = "ipam/lease/"    // NETWORK/ADDRESS: a Lease
	ownerPfx    = "ipam/owner/"    // VM/POD/INTERFACE/FAMILY: the key of the lease; see also holding
	nextPrefix  = "ipam/next/"     // NETWORK/FAMILY: the lowest address never leased, "end" or, in blocks, none; see also ownBlockKey
	queuePrefix = "ipam/queue/"    // NETWORK/FAMILY/TIME/ADDRESS: a queued address; in the order of time
	freedPrefix = "ipam/freed/"    // NETWORK/ADDRESS: the key of the address in the queue
	macPrefix   = "ipam/mac/"      // MAC: the Owner
	reservedPfx = "ipam/reserved/" // VM/NETWORK/ADDRESS: a vnic.Reservation; its lease names the VM
	blockPrefix = "ipam/block/"    // NETWORK/FAMILY/START: a block that is claimed or leased from
	sparePrefix = "ipam/spare/"    // NETWORK/FAMILY/START: whose the block is, if it has a free address
	treePrefix  = "ipam/tree/"     // NETWORK/FAMILY/DIGITS: a node of the tree of closed blocks
)

// OwnPrefixes returns the prefixes of the keys that each hypervisor has of its own.
func OwnPrefixes() []string {
	return []string{ownerPfx, nextPrefix, queuePrefix, freedPrefix, reservedPfx}
}

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

// inFamily returns the prefix of keys of a network's pool of the family of a.
func inFamily(prefix, network string, a netip.Addr) string {
	return prefix + network + "/" + familyOf(a) + "/"
}

// hexOf prints an address in digits of a fixed number.
func hexOf(a netip.Addr) string { return hex.EncodeToString(a.AsSlice()) }

func blockKey(network string, start netip.Addr) string {
	return inFamily(blockPrefix, network, start) + hexOf(start)
}

func spareKey(network string, start netip.Addr) string {
	return inFamily(sparePrefix, network, start) + hexOf(start)
}

// ownBlockKey says that the hypervisor has claimed a block; its value is the pool.
func ownBlockKey(network string, start netip.Addr) string {
	return inFamily(nextPrefix, network, start) + hexOf(start)
}

// startOf returns the address that such a key ends with.
func startOf(key string) (netip.Addr, error) {
	b, err := hex.DecodeString(key[strings.LastIndexByte(key, '/')+1:])
	if err != nil {
		return netip.Addr{}, fmt.Errorf("decode %s: %w", key, err)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return a, fmt.Errorf("decode %s: it ends with no address: %w", key, store.ErrDamaged)
	}
	return a, nil
}

// ownerMACKey says that the hypervisor leased a MAC to that owner; its value is
// the Owner. The last part of no other key under ownerPfx is a MAC.
func ownerMACKey(k vnic.Key, m vnic.MAC) string { return ownerPrefix(k) + "mac/" + m.String() }

func reservedPrefix(vm string) string { return reservedPfx + vm + "/" }

func reservedKey(vm, network string, a netip.Addr) string {
	return reservedPrefix(vm) + network + "/" + a.String()
}

func decode(it store.Item, v any) error {
	if err := json.Unmarshal(it.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w", it.Key, err)
	}
	return nil
}

func encode(tx store.Tx, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(key, b)
}
