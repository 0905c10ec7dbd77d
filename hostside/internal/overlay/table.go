package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Remote is a pod on another hypervisor.
type Remote struct {
	MAC       vnic.MAC
	Addresses []netip.Addr // IPv4 and IPv6
	Host      netip.Addr   // the underlay's address of its hypervisor
}

func (o *Overlay) check(r Remote) error {
	switch {
	case r.MAC.IsZero() || r.MAC[0]&1 != 0:
		return fmt.Errorf("remote pod: mac %s is no unicast address: %w", r.MAC, vnic.ErrInvalid)
	case r.Host == o.cfg.Local:
		return fmt.Errorf("remote pod %s: host %s is this one: %w; declare pods of others only", r.MAC, r.Host, vnic.ErrInvalid)
	case !r.Host.IsValid() || r.Host.IsUnspecified() || r.Host.IsMulticast() || r.Host.Is4() != o.cfg.Local.Is4() || r.Host.Zone() != "":
		return fmt.Errorf("remote pod %s: host %q is no address like %s: %w", r.MAC, r.Host, o.cfg.Local, vnic.ErrInvalid)
	}
	for _, a := range r.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("remote pod %s: %q is no pod's address: %w", r.MAC, a, vnic.ErrInvalid)
		}
	}
	return nil
}

// table is what the kernel is to say about a network's remote pods. It is changed by who
// holds the network's work, under mu; who holds work may read it without.
type table struct {
	mu sync.Mutex
	// known says that it is the whole table. Until then, what is not in it is left alone.
	known   bool
	remotes map[vnic.MAC]Remote
	owners  map[netip.Addr]vnic.MAC // of two remotes with an address, the last one has it
}

// keys are things to look at.
type keys struct {
	macs  []vnic.MAC
	addrs []netip.Addr
}

func (t *table) replace(all []Remote) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known = true
	t.remotes, t.owners = make(map[vnic.MAC]Remote, len(all)), make(map[netip.Addr]vnic.MAC, len(all))
	for _, r := range all {
		t.setLocked(r)
	}
}

// set adds or changes remotes, and returns what that touches.
func (t *table) set(some []Remote) keys {
	t.mu.Lock()
	defer t.mu.Unlock()
	var k keys
	for _, r := range some {
		k.addrs = append(k.addrs, t.removeLocked(r.MAC)...)
		t.setLocked(r)
		k.macs, k.addrs = append(k.macs, r.MAC), append(k.addrs, r.Addresses...)
	}
	return k
}

func (t *table) setLocked(r Remote) {
	r.Addresses = slices.Clone(r.Addresses)
	t.remotes[r.MAC] = r
	for _, a := range r.Addresses {
		t.owners[a] = r.MAC
	}
}

// remove removes remotes, and returns what that touches.
func (t *table) remove(macs []vnic.MAC) keys {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := keys{macs: macs}
	for _, mac := range macs {
		k.addrs = append(k.addrs, t.removeLocked(mac)...)
	}
	return k
}

// removeLocked returns the addresses that nobody has any more.
func (t *table) removeLocked(mac vnic.MAC) []netip.Addr {
	var free []netip.Addr
	for _, a := range t.remotes[mac].Addresses {
		if t.owners[a] == mac {
			delete(t.owners, a)
			free = append(free, a)
		}
	}
	delete(t.remotes, mac)
	return free
}

// agrees tells whether news about an entry are as they should be. port says that it is at
// the VXLAN link.
func (t *table) agrees(e rtnl.Entry, port bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Addr.IsValid() {
		mac, wanted := t.owners[e.Addr]
		if !wanted {
			return !t.known || e.Gone || !e.Permanent()
		}
		return !e.Gone && neighbourIs(e, mac)
	}
	r, wanted := t.remotes[e.MAC]
	switch {
	case !wanted:
		return !t.known || e.Gone || !port || e.Local()
	case e.Gone || !port:
		return false
	case e.Master != 0:
		return portIs(e)
	}
	return tunnelIs(e, r.Host)
}

func neighbourIs(e rtnl.Entry, mac vnic.MAC) bool { return e.Permanent() && e.MAC == mac }

func tunnelIs(e rtnl.Entry, host netip.Addr) bool { return e.End == host && e.Static() && !e.Odd }

func portIs(e rtnl.Entry) bool { return e.Static() && !e.Local() && e.Sticky() }
