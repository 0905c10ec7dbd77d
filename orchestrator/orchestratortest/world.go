package orchestratortest

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// A World has hypervisors, their VMs and what is in them. It is safe for
// concurrent use. Make it with [New].
type World struct {
	mu       sync.Mutex
	machines map[string]*machine                        // guarded by mu
	networks map[string]vnic.Network                    // guarded by mu
	taps     map[vnic.ID]string                         // guarded by mu; the VM that each was made for
	loose    map[vnic.ID]bool                           // guarded by mu; taps that are in no bridge
	filters  map[vnic.ID]bool                           // guarded by mu; of taps that are gone
	extras   map[vnic.ID]extra                          // guarded by mu; of taps that have any
	busy     map[uint16]bool                            // guarded by mu; ports of the host that other programs have
	hooks    map[string]func(ctx context.Context) error // guarded by mu; by "before CALL" and "after CALL"
	conns    []*Conn                                    // guarded by mu
	calls    map[string]int                             // guarded by mu; by call
	wrong    []string                                   // guarded by mu; see Wrong
}

// extra is what a tap has beside its filter.
type extra struct {
	ports     []vnic.PortMapping
	bandwidth vnic.Bandwidth
}

// machine is a VM, with its hypervisor and its guest.
type machine struct {
	up, agent bool
	slots     int
	blind     bool // the guest doesn't see what is plugged
	swift     bool // the agent configures what it moves
	devices   map[vnic.ID]*device
	pods      map[string]bool
	told      map[vnic.MAC]vnic.ID // what the agent remembers
}

// device is a vNIC that is plugged.
type device struct {
	id     vnic.ID
	mac    vnic.MAC
	slot   int
	seen   bool   // by the guest
	netns  string // empty: the guest's first namespace
	name   string
	up     bool
	addrs  []netip.Prefix
	routes []vnic.Route
	handed bool   // to an engine, which moves it
	pod    string // that it was moved to last
	dirt   string // what its pod made of it
	sticks bool   // the dirt can't be removed
	spoilt bool   // nobody gets it any more
}

// New returns a World without VMs.
func New() *World {
	return &World{
		machines: map[string]*machine{}, networks: map[string]vnic.Network{}, taps: map[vnic.ID]string{},
		loose: map[vnic.ID]bool{}, filters: map[vnic.ID]bool{}, extras: map[vnic.ID]extra{}, busy: map[uint16]bool{},
		hooks: map[string]func(context.Context) error{}, calls: map[string]int{},
	}
}

// Boot starts a VM with 31 free slots, its agent, and pods of those names.
func (w *World) Boot(vm string, pods ...string) {
	m := &machine{up: true, agent: true, slots: 31, devices: map[vnic.ID]*device{}, pods: map[string]bool{}, told: map[vnic.MAC]vnic.ID{}}
	for _, p := range pods {
		m.pods[p] = true
	}
	w.change(func() []vnic.Event {
		w.machines[vm] = m
		return []vnic.Event{{Kind: vnic.EventVMUp, VM: vm}, {Kind: vnic.EventAgentUp, VM: vm}}
	})
}

// Kill ends a VM's hypervisor, and all that it had.
func (w *World) Kill(vm string) {
	w.change(func() []vnic.Event {
		m := w.machines[vm]
		m.up, m.agent = false, false
		m.devices, m.pods, m.told = map[vnic.ID]*device{}, map[string]bool{}, map[vnic.MAC]vnic.ID{}
		return []vnic.Event{{Kind: vnic.EventAgentOff, VM: vm}, {Kind: vnic.EventVMGone, VM: vm}}
	})
}

// StopAgent ends a VM's agent, which forgets all it was told.
func (w *World) StopAgent(vm string) {
	w.change(func() []vnic.Event {
		m := w.machines[vm]
		m.agent, m.told = false, map[vnic.MAC]vnic.ID{}
		return []vnic.Event{{Kind: vnic.EventAgentOff, VM: vm}}
	})
}

// StartAgent starts a VM's agent.
func (w *World) StartAgent(vm string) {
	w.change(func() []vnic.Event {
		w.machines[vm].agent = true
		return []vnic.Event{{Kind: vnic.EventAgentUp, VM: vm}}
	})
}

// StartPod makes a pod's namespace.
func (w *World) StartPod(vm, netns string) {
	w.change(func() []vnic.Event { w.machines[vm].pods[netns] = true; return nil })
}

// KillPod deletes a pod's namespace: the kernel puts its vNICs, down and bare,
// into the guest's first namespace.
func (w *World) KillPod(vm, netns string) {
	w.change(func() []vnic.Event {
		m := w.machines[vm]
		delete(m.pods, netns)
		var events []vnic.Event
		for _, d := range m.sorted() {
			if d.netns != netns {
				continue
			}
			d.bare()
			if id := m.told[d.mac]; m.agent && id != "" && !d.handed {
				events = append(events, vnic.Event{Kind: vnic.EventReturned, VM: vm, ID: id, MAC: d.mac})
			}
		}
		return events
	})
}

// TakeIn has an engine in the guest move a vNIC that was handed over into a pod,
// under a name of its choice.
func (w *World) TakeIn(vm string, id vnic.ID, netns, name string) {
	w.change(func() []vnic.Event {
		d := w.machines[vm].devices[id]
		d.netns, d.name, d.up = netns, name, true
		return nil
	})
}

// Occupy has another program listen on a port of the host, or leave it.
func (w *World) Occupy(port uint16, there bool) {
	w.change(func() []vnic.Event { w.busy[port] = there; return nil })
}

// Forget has the host lose what its taps have of published ports and limits, as
// the end of the daemon does.
func (w *World) Forget() {
	w.change(func() []vnic.Event { clear(w.extras); return nil })
}

// Eject has the guest, or an operator, unplug a vNIC; its tap stays.
func (w *World) Eject(vm string, id vnic.ID) {
	w.change(func() []vnic.Event {
		delete(w.machines[vm].devices, id)
		return []vnic.Event{{Kind: vnic.EventRemoved, VM: vm, ID: id}}
	})
}

// Spoil has the guest find that a vNIC which it took back is not like new.
func (w *World) Spoil(vm string, id vnic.ID) {
	w.change(func() []vnic.Event { w.machines[vm].devices[id].spoilt = true; return nil })
}

// DeleteTap deletes a tap behind everybody's back.
func (w *World) DeleteTap(id vnic.ID) {
	w.change(func() []vnic.Event { delete(w.taps, id); return nil })
}

// DeleteBridge deletes a network's bridge behind everybody's back: all taps are
// in no bridge from then on.
func (w *World) DeleteBridge(network string) {
	w.change(func() []vnic.Event {
		delete(w.networks, network)
		for id := range w.taps {
			w.loose[id] = true
		}
		return nil
	})
}

// Alias has a VM's hypervisor be reached by a second name, too.
func (w *World) Alias(vm, second string) {
	w.change(func() []vnic.Event { w.machines[second] = w.machines[vm]; return nil })
}

// Blind makes the guest see nothing that is plugged from now on.
func (w *World) Blind(vm string) {
	w.change(func() []vnic.Event { w.machines[vm].blind = true; return nil })
}

// Bridge makes a tap a port of a bridge behind everybody's back.
func (w *World) Bridge(id vnic.ID) {
	w.change(func() []vnic.Event { delete(w.loose, id); return nil })
}

// Revive starts what of a VM and its agent does not run.
func (w *World) Revive(vm string) {
	w.mu.Lock()
	m := w.machines[vm]
	up, agent := m.up, m.agent
	w.mu.Unlock()
	switch {
	case !up:
		w.Boot(vm, "web", "db")
	case !agent:
		w.StartAgent(vm)
	}
}

// Swift has the agent configure what it moves, in the same call.
func (w *World) Swift(vm string) {
	w.change(func() []vnic.Event { w.machines[vm].swift = true; return nil })
}

// Soil has a pod leave something on its vNIC, such as "xdp": a vNIC that is
// retrieved is free of it, unless it sticks. A vNIC that is in no pod stays as it is.
func (w *World) Soil(vm string, id vnic.ID, dirt string, sticks bool) {
	w.change(func() []vnic.Event {
		if d := w.machines[vm].devices[id]; d != nil && d.netns != "" {
			d.dirt, d.sticks = dirt, sticks
		}
		return nil
	})
}

// SetUp sets a vNIC up by hand.
func (w *World) SetUp(vm string, id vnic.ID) {
	w.change(func() []vnic.Event { w.machines[vm].devices[id].up = true; return nil })
}

// Taint is Soil by anybody in the guest, wherever the vNIC is.
func (w *World) Taint(vm string, id vnic.ID, dirt string, sticks bool) {
	w.change(func() []vnic.Event {
		if d := w.machines[vm].devices[id]; d != nil {
			d.dirt, d.sticks = dirt, sticks
		}
		return nil
	})
}

// Wrong returns what happened that never must: a pod got a vNIC that another pod
// has, or with what another left on it.
func (w *World) Wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wrong)
}

// SetSlots sets how many slots a VM has.
func (w *World) SetSlots(vm string, n int) {
	w.change(func() []vnic.Event { w.machines[vm].slots = n; return nil })
}

// Litter puts a tap on the host that nobody asked for, and a device into the VM
// if there is one of that name.
func (w *World) Litter(vm string, id vnic.ID) {
	w.change(func() []vnic.Event {
		w.taps[id] = vm
		if m := w.machines[vm]; m != nil {
			m.devices[id] = &device{id: id, mac: vnic.NewMAC(), slot: m.freeSlot(), seen: true, name: "eth9"}
		}
		return nil
	})
}

// LitterFilter leaves the packet filter of a tap that is gone on the host.
func (w *World) LitterFilter(id vnic.ID) {
	w.change(func() []vnic.Event { w.filters[id] = true; return nil })
}

// change runs fn under the lock and sends its events to all connections.
func (w *World) change(fn func() []vnic.Event) {
	w.mu.Lock()
	events := fn()
	conns := slices.Clone(w.conns)
	w.mu.Unlock()
	for _, c := range conns {
		for _, ev := range events {
			c.emit(ev)
		}
	}
}

// Before has fn run at the beginning of each such call: "prepare", "plug", "park",
// "unpark", "move", "configure", "release", "retrieve", "nics", "unplug", "ports", "free", "networks",
// "setnetwork", "removenetwork", "addvm" or "removevm". Its error, if any, is the call's, which
// then has no effect. fn nil ends that.
func (w *World) Before(call string, fn func(ctx context.Context) error) { w.hook("before "+call, fn) }

// After is like Before, but the call has had its effect when fn runs.
func (w *World) After(call string, fn func(ctx context.Context) error) { w.hook("after "+call, fn) }

// Fail makes each such call fail with err, before it has an effect; nil ends that.
func (w *World) Fail(call string, err error) {
	if err == nil {
		w.Before(call, nil)
		return
	}
	w.Before(call, func(context.Context) error { return err })
}

// Hang makes each such call wait until its context ends, before it has an effect.
func (w *World) Hang(call string) {
	w.Before(call, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
}

func (w *World) hook(name string, fn func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks[name] = fn
}

// Calls returns how often a call was made.
func (w *World) Calls(call string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[call]
}

func (m *machine) sorted() []*device {
	var list []*device
	for _, d := range m.devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *device) int { return a.slot - b.slot })
	return list
}

// freeSlot returns the lowest slot that is free; more than m.slots when none is.
func (m *machine) freeSlot() int {
	slot := 1
	for _, d := range m.sorted() {
		if d.slot == slot {
			slot++
		}
	}
	return slot
}

// find returns the device with that MAC which the guest sees.
func (m *machine) find(mac vnic.MAC) *device {
	for _, d := range m.devices {
		if d.mac == mac && d.seen {
			return d
		}
	}
	return nil
}

// bare is what the kernel does to a device that leaves a dying namespace.
func (d *device) bare() {
	d.netns, d.up, d.addrs, d.routes = "", false, nil, nil
}
