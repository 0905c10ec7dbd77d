package qmpvm

import "context"

// traits are what the arguments of a vNIC's device depend on. They stay as long
// as QEMU runs, but for CPUs that are plugged.
type traits struct {
	cpus     int
	emulated bool // there is no KVM
}

// traits asks QEMU. What it can't tell is taken for the usual.
func (c *Conn) traits(ctx context.Context) (traits, error) {
	var cpus []struct{}
	var kvm struct {
		Enabled bool `json:"enabled"`
	}
	accel := &query{cmd: "query-kvm", into: &kvm}
	err := c.ask(ctx, &query{cmd: "query-cpus-fast", into: &cpus}, accel)
	return traits{cpus: max(1, len(cpus)), emulated: accel.found && !kvm.Enabled}, err
}

// fewNICs are so many that a plug takes hardly longer for their eventfds.
const fewNICs = 64

// trim leaves out of a device's arguments what costs more than it gives, in a VM
// that uses so many slots. By an eventfd a guest's kick reaches QEMU's event loop
// without a stop of the CPU. Without KVM, QEMU itself writes to it: counted in
// the guest's instructions, a datagram that is sent costs 1 % less by that, a round
// trip 3 % more (docs/capacity.md). Yet each eventfd makes every change of QEMU's memory
// map longer, of which a plug has dozens: with 200 vNICs half of QEMU's share of a
// plug. vhost needs the eventfds.
func (t traits) trim(a args, vhost bool, used int) {
	if t.emulated && !vhost && used > fewNICs {
		a["ioeventfd"] = false
	}
}
