package ipam_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/orchestrator/ipam"
)

// holding is what a pod or a reservation has.
type holding struct {
	who   string // a pod, or the VM of a reservation, which has only this one; with "@" and the hypervisor
	owner ipam.Owner
	vm    string // empty for a pod
	addrs []netip.Addr
}

// whose names who has a lease as a holding does.
func whose(l ipam.Lease) string {
	if l.VM != "" {
		return l.VM + "@" + l.Hypervisor
	}
	return l.Owner.Key.Pod + "@" + l.Hypervisor
}

// book has what hypervisors were told of their calls.
type book struct {
	t  *testing.T
	mu sync.Mutex
	// held has what succeeded and was not begun to be given back; guarded by mu.
	held map[netip.Addr]string
	// maybe has what was unclear, and whether it was seen not to be there later, which a
	// commit that is still under way can change; guarded by mu.
	maybe map[entry]bool
	calls map[outcome]int // guarded by mu
}

// entry is a lease that may be there.
type entry struct {
	address netip.Addr
	who     string
}

func newBook(t *testing.T) *book {
	t.Helper()
	return &book{t: t, held: map[netip.Addr]string{}, maybe: map[entry]bool{}, calls: map[outcome]int{}}
}

// hold notes that somebody surely has addresses, which nobody else may have.
func (b *book) hold(h holding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range h.addrs {
		if other, ok := b.held[a]; ok {
			assert.Fail(b.t, "an address is given twice", "%s has %s, which %s is given", other, a, h.who)
		}
		b.held[a] = h.who
		delete(b.maybe, entry{a, h.who})
	}
}

// drop notes that somebody gives addresses back.
func (b *book) drop(h holding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range h.addrs {
		assert.Equal(b.t, h.who, b.held[a])
		delete(b.held, a)
	}
}

// swap notes that one takes over what another one has.
func (b *book) swap(was, now holding) {
	b.drop(was)
	b.hold(now)
}

// doubt notes that somebody may have addresses.
func (b *book) doubt(h holding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range h.addrs {
		b.maybe[entry{a, h.who}] = false
	}
}

// gone notes that somebody was seen not to have what it may have had.
func (b *book) gone(h holding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range h.addrs {
		b.maybe[entry{a, h.who}] = true
	}
}

// forget notes that all which a hypervisor has is given back.
func (b *book) forget(hypervisor string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for a, who := range b.held {
		if strings.HasSuffix(who, "@"+hypervisor) {
			delete(b.held, a)
		}
	}
}

// count counts what became of a call.
func (b *book) count(o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[o]++
}

// check compares the book with the leases that there are.
func (b *book) check(leases []ipam.Lease) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	found, unclear, late := map[netip.Addr]string{}, 0, 0
	for _, l := range leases {
		who := whose(l)
		found[l.Address] = who
		gone, maybe := b.maybe[entry{l.Address, who}]
		switch {
		case b.held[l.Address] == who:
		case maybe:
			unclear++
			if gone {
				late++
			}
		default:
			assert.Fail(b.t, "a lease that nobody took", "%s has %s, by the book %q", who, l.Address, b.held[l.Address])
		}
	}
	for a, who := range b.held {
		assert.Equal(b.t, who, found[a], "who has %s", a)
	}
	b.t.Logf("calls: %v; %d leases; of %d that unclear calls may have left %d are there, %d of them late", b.calls, len(leases), len(b.maybe), unclear, late)
}

// outcome is what became of a call.
type outcome int

const (
	made outcome = iota
	unmade
	unclear
)

func (o outcome) String() string {
	switch o {
	case made:
		return "made"
	case unmade:
		return "not made"
	}
	return "unclear"
}
