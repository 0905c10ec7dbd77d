package libvirtvm

import (
	"time"

	"github.com/brfuse/brfuse/hostside/internal/slots"
)

// refusedLimit is how long a slot that QEMU refused, though it is free by the XML,
// isn't tried again.
const refusedLimit = 30 * time.Second

// refuse remembers that QEMU refuses a slot: somebody plugged a device there without
// libvirt.
func (v *VM) refuse(slot string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refused == nil {
		v.refused = map[string]time.Time{}
	}
	v.refused[slot] = time.Now()
}

// markRefused adds to what a look found which slots QEMU refused lately.
func (v *VM) markRefused(buses []slots.Bus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, since := range v.refused {
		if time.Since(since) > refusedLimit {
			delete(v.refused, name)
		}
	}
	if len(v.refused) == 0 {
		return
	}
	for _, b := range buses {
		for device := range lastDevice + 1 {
			if _, ok := v.refused[slots.Name(b.Name, device)]; ok && b.Taken[device] == "" {
				b.Taken[device] = "refused by QEMU"
			}
		}
	}
}

// lastDevice is the highest device number on a bus.
const lastDevice = 31
