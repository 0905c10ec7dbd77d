package guestside

import (
	"sync"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// device is what the agent knows of a vNIC as a device, whoever has it.
type device struct {
	pci, driver string
	// used says that somebody may have changed it who was given it.
	used bool
	// spoilt is why it could not be made like new after that.
	spoilt error
	// link and facts are what it was when it was new. No facts: it wasn't looked at.
	link  rtnl.Link
	facts rtnl.Facts
}

// devices are keyed by MAC. They are forgotten when they are unplugged.
type devices struct {
	mu sync.Mutex
	m  map[vnic.MAC]device // guarded by mu
}

func newDevices() *devices { return &devices{m: map[vnic.MAC]device{}} }

func (ds *devices) get(mac vnic.MAC) (device, bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d, ok := ds.m[mac]
	return d, ok
}

func (ds *devices) put(mac vnic.MAC, d device) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.m[mac] = d
}

// edit changes what is known of a device, which may be nothing.
func (ds *devices) edit(mac vnic.MAC, fn func(d *device)) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d := ds.m[mac]
	fn(&d)
	ds.m[mac] = d
}

// use notes that somebody is given the device.
func (ds *devices) use(mac vnic.MAC) { ds.edit(mac, func(d *device) { d.used = true }) }

// gone forgets the devices whose links were deleted in the first namespace.
func (ds *devices) gone(u rtnl.Update) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	for _, c := range u.Changes {
		if !c.Gone || c.Moved {
			continue
		}
		mac := nicOf(c.Link).MAC
		if d, ok := ds.m[mac]; ok && d.link.Index == c.Link.Index {
			delete(ds.m, mac)
		}
	}
}

func (ds *devices) drop(mac vnic.MAC) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	delete(ds.m, mac)
}
