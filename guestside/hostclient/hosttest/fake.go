// Package hosttest has a hypervisor's daemon in memory, for tests of what asks one
// by a hostclient.Client.
package hosttest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// Host is what [Fake] and hostclient.Client are alike in.
type Host interface {
	Attachments
	Addresses
}

// Attachments are the calls about attachments.
type Attachments interface {
	Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error)
	Detach(ctx context.Context, pod, iface string) error
	Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error)
	Check(ctx context.Context, pod, iface string) (vnic.Attachment, error)
	Ready(ctx context.Context, network string) error
	Publish(ctx context.Context, pod, iface string, ports []vnic.PortMapping) error
}

// Addresses are the calls about networks and addresses.
type Addresses interface {
	Networks(ctx context.Context) ([]vnic.Network, error)
	Reserve(ctx context.Context, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error)
	Unreserve(ctx context.Context, network string, addrs []netip.Addr) error
	Reservations(ctx context.Context) ([]vnic.Reservation, error)
}

// Fake is a daemon with networks, a VM that has slots, attachments and
// reservations, all in memory. It answers as brfused does, with the same errors.
// Its methods are safe for concurrent use; its fields are set before the first.
type Fake struct {
	// Networks are those that there are, completed. See [New].
	Nets []vnic.Network
	// Allowed are the names of those that the guest may ask for. Default: all.
	Allowed []string
	// Slots is how many vNICs the VM takes. Default: 31.
	Slots int
	// Quota is how many attachments and reservations the VM may have. Default: 1024.
	Quota int
	// OnPlug is called for each new attachment as it is plugged, moved and
	// configured, without locks: a test makes a stand-in device there. Its error
	// fails the attach. It may fill in what the guest finds, such as GuestPCI. Optional.
	OnPlug func(a *vnic.Attachment) error
	// OnUnplug is called for each attachment that goes, without locks. Optional.
	OnUnplug func(a vnic.Attachment)

	mu       sync.Mutex // guards what is below
	attached map[vnic.Key]vnic.Attachment
	busy     map[vnic.Key]chan struct{} // keys in the middle of an attach or detach; closed at its end
	reserved []vnic.Reservation
	broken   map[vnic.Key]error
	faults   map[string]*fault
	calls    []string
	away     error
	notified []chan struct{}
}

// fault is what happens to calls of one name.
type fault struct {
	err   error
	times int           // how often err is returned; less than 0: always
	hang  chan struct{} // calls wait until it is closed, or their ctx ends
}

// New returns a daemon with these networks. It panics when one makes no sense.
func New(nets ...vnic.Network) *Fake {
	f := &Fake{
		Slots: 31, Quota: 1024,
		attached: map[vnic.Key]vnic.Attachment{}, busy: map[vnic.Key]chan struct{}{},
		broken: map[vnic.Key]error{}, faults: map[string]*fault{},
	}
	for _, n := range nets {
		n, err := n.Complete()
		if err != nil {
			panic(err)
		}
		f.Nets = append(f.Nets, n)
	}
	return f
}

// Blue is a network for tests: "blue", 10.9.0.0/24 and fd00:9::/64, MTU 1500.
func Blue() vnic.Network {
	return vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")}}
}

// Fail makes the next calls of a method, such as "Attach", fail, before they do
// anything: as many as times, or all when it is less than 0; 0 ends it.
func (f *Fake) Fail(method string, err error, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[method] = &fault{err: err, times: times}
}

// Hang makes calls of a method wait, before they do anything, until resume is
// called or their context ends.
func (f *Fake) Hang(method string) (resume func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{})
	f.faults[method] = &fault{hang: ch}
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(ch)
		if f.faults[method].hang == ch {
			delete(f.faults, method)
		}
	})
}

// SetAway makes all calls fail with [vnic.ErrHostUnavailable], or end that. The end
// is like a session that begins: [Fake.Notify] tells.
func (f *Fake) SetAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if away {
		f.away = fmt.Errorf("%w: told to be away", vnic.ErrHostUnavailable)
		return
	}
	f.away = nil
	for _, ch := range f.notified {
		tell(ch)
	}
}

// Notify is that of hostclient.Client.
func (f *Fake) Notify() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan struct{}, 1)
	f.notified = append(f.notified, ch)
	if f.away == nil {
		tell(ch)
	}
	return ch
}

func tell(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Break makes Check of an attachment fail, with an error such as a
// [vnic.ErrDiffers]; nil ends it.
func (f *Fake) Break(pod, iface string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[key(pod, iface)] = err
}

// Calls returns the calls so far, such as "Attach web/eth0" and "Networks".
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// String tells the state as text: a line for each attachment and reservation,
// sorted.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, a := range f.attached {
		line := fmt.Sprintf("%s/%s %s %v", a.Request.Pod, a.Request.Interface, a.Request.Network, a.Leases)
		if a.Request.Manager != "" {
			line += " manager " + a.Request.Manager
		}
		if len(a.Request.Ports) > 0 {
			line += fmt.Sprintf(" ports %v", a.Request.Ports)
		}
		lines = append(lines, line)
	}
	for _, r := range f.reserved {
		lines = append(lines, fmt.Sprintf("reserved %s %s", r.Network, r.Address))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func key(pod, iface string) vnic.Key { return vnic.Key{Pod: pod, Interface: iface} }

// begin notes a call, and lets happen what it was told to.
func (f *Fake) begin(ctx context.Context, method, about string) error {
	f.mu.Lock()
	f.calls = append(f.calls, strings.TrimSpace(method+" "+about))
	away, ft := f.away, f.faults[method]
	var err error
	var hang chan struct{}
	if ft != nil {
		hang = ft.hang
		if ft.times != 0 {
			err = ft.err
			ft.times--
		}
	}
	f.mu.Unlock()
	switch {
	case away != nil:
		return away
	case err != nil:
		return err
	case hang != nil:
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// sorted returns the attachments in the order of their IDs. f.mu is held.
func (f *Fake) sortedLocked() []vnic.Attachment {
	return slices.SortedFunc(maps.Values(f.attached), func(a, b vnic.Attachment) int {
		return strings.Compare(string(a.ID), string(b.ID))
	})
}
