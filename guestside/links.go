package guestside

import (
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// links are the links of the first namespace, as far as events have told.
type links struct {
	mu      sync.Mutex
	byIndex map[int]rtnl.Link
	news    time.Time                  // when there was some
	waiters map[vnic.MAC]chan struct{} // closed when the device appears
}

func newLinks() *links {
	return &links{byIndex: map[int]rtnl.Link{}, waiters: map[vnic.MAC]chan struct{}{}}
}

// apply takes in news and wakes who waits for a device that is in them.
func (ls *links) apply(u rtnl.Update) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if u.Full {
		clear(ls.byIndex)
	}
	ls.news = time.Now()
	for _, c := range u.Changes {
		if c.Gone {
			delete(ls.byIndex, c.Link.Index)
			continue
		}
		ls.byIndex[c.Link.Index] = c.Link
		for mac, ch := range ls.waiters {
			if c.Link.HasMAC(mac) {
				close(ch)
				delete(ls.waiters, mac)
			}
		}
	}
}

// lastNews returns when there was news of a link.
func (ls *links) lastNews() time.Time {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.news
}

// find returns the device with that MAC, and whether it is there.
func (ls *links) find(mac vnic.MAC) (rtnl.Link, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.findLocked(mac)
}

// named returns the link of that name, and whether there is one.
func (ls *links) named(name string) (rtnl.Link, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.byIndex {
		if l.Name == name {
			return l, true
		}
	}
	return rtnl.Link{}, false
}

// await returns the device if it is there, else a channel that is closed when
// it appears. There is one waiter a MAC at a time; the caller forgets the
// channel by unawait.
func (ls *links) await(mac vnic.MAC) (rtnl.Link, <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l, ok := ls.findLocked(mac); ok {
		return l, nil
	}
	ch := make(chan struct{})
	ls.waiters[mac] = ch
	return rtnl.Link{}, ch
}

func (ls *links) unawait(mac vnic.MAC) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.waiters, mac)
}

// forget drops a device that has left, before the event tells so. Another one
// may have come with its index meanwhile, which stays.
func (ls *links) forget(index int, mac vnic.MAC) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l, ok := ls.byIndex[index]; ok && l.HasMAC(mac) {
		delete(ls.byIndex, index)
	}
}

// note takes in that a device is here, before the event tells so.
func (ls *links) note(l rtnl.Link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.byIndex[l.Index] = l
}

func (ls *links) findLocked(mac vnic.MAC) (rtnl.Link, bool) {
	for _, l := range ls.byIndex {
		if l.HasMAC(mac) {
			return l, true
		}
	}
	return rtnl.Link{}, false
}
