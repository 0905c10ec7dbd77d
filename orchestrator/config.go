package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Host is the half on the hypervisor. Its methods are safe for concurrent use,
// may be repeated, and return soon after ctx ends.
type Host interface {
	// SetNetwork makes a network, or makes it so again.
	SetNetwork(ctx context.Context, n vnic.Network) error
	// RemoveNetwork removes a network; that it is gone is no error.
	RemoveNetwork(ctx context.Context, n vnic.Network) error
	// Networks returns the networks whose bridges brfuse made, with no more than
	// name and bridge: enough for RemoveNetwork.
	Networks(ctx context.Context) ([]vnic.Network, error)
	// Plug gives a VM a vNIC, and undoes all it did when it fails. When the VM has
	// it, Plug makes its tap a port of the network's bridge again, and puts right what
	// the port has of filters, published ports and limits.
	Plug(ctx context.Context, p vnic.Plug) (vnic.Port, error)
	// Unplug takes a vNIC and its tap away. That they are gone, or that the VM is,
	// is no error. With an empty vm it takes away a tap that no VM has.
	Unplug(ctx context.Context, vm string, id vnic.ID) error
	// Park takes a plugged vNIC out of its network: its tap is down, in no bridge, and
	// without filters, published ports and limits of an attachment. That it is parked
	// or gone is no error.
	Park(ctx context.Context, vm string, id vnic.ID) error
	// Unpark makes a parked vNIC's tap a port of its network's bridge, with filters,
	// published ports and limits, and parks it again when it fails. The error is
	// [vnic.ErrNotFound] when the tap is not there. QEMU is not asked.
	Unpark(ctx context.Context, p vnic.Plug) error
	// Ports returns the vNICs that a VM has, none when it is gone. When vm is
	// empty, it returns those of all VMs, and the taps that no VM has, or what is
	// left of them, with an empty VM. When a hypervisor can't be asked, it fails.
	Ports(ctx context.Context, vm string) ([]vnic.Port, error)
	// Free returns how many slots of a running VM are free, and how many it has.
	Free(ctx context.Context, vm string) (free, total int, err error)
}

// Guest is the half in the VMs. Its methods are safe for concurrent use, may be
// repeated, and return soon after ctx ends. They return
// [vnic.ErrAgentUnavailable] when a VM's agent is absent or silent.
type Guest interface {
	// Prepare checks that the vNIC can be moved once it is plugged.
	Prepare(ctx context.Context, vm string, m vnic.Move) error
	// Move waits for the vNIC, puts it into the pod, and tells how long each took.
	// It may configure it in the same visit to the pod, and returns it up then.
	Move(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, []vnic.Timing, error)
	// Configure gives one that is not up its addresses and routes, and sets it up.
	Configure(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, error)
	// Release has the guest forget a vNIC that is about to be unplugged. That pod or
	// vNIC are gone is no error.
	Release(ctx context.Context, vm string, m vnic.Move) error
	// Retrieve waits for the vNIC, takes it from wherever it is back to the guest's
	// first namespace, and makes it like one that was just plugged: down, named by
	// [vnic.ID.LinkName], with the order's MTU and queues, and without a trace of a
	// pod. One that can't be made so is a [vnic.ErrDiffers].
	Retrieve(ctx context.Context, vm string, m vnic.Move) (vnic.NIC, error)
	// NICs returns the vNICs that the guest has.
	NICs(ctx context.Context, vm string) ([]vnic.NIC, error)
}

// VMs are told which VMs there are, before Host and Guest are asked about them.
type VMs interface {
	// AddVM registers a VM, also one that is not running; it may be repeated.
	AddVM(ctx context.Context, vm vnic.VM) error
	// RemoveVM forgets a VM; that it is unknown, or [vnic.ErrUnknownVM], is no failure.
	RemoveVM(ctx context.Context, name string) error
}

// Config says what an Orchestrator works with.
type Config struct {
	Store store.Store // required; the caller closes it, after the Orchestrator
	Host  Host        // required
	Guest Guest       // required
	VMs   VMs         // required
	// Migrator moves running VMs. Default: none are moved.
	Migrator Migrator
	// Cluster is set when several hypervisors share the store. Default: there is only
	// this one.
	Cluster *Cluster
	// Names serve the names of pods, and Services lead published ports to them, where
	// the daemon has such.
	Names    fabric.Names
	Services fabric.Services
	// Observers are told of attaches and detaches. Default: nobody is.
	Observers []Observer
	// Log gets what happens in the background. Default: nothing is logged.
	Log *slog.Logger
	// Quarantine is how long an address is left alone after it was given back.
	// Default: 30 s; negative: not at all.
	Quarantine time.Duration
	// Deadlines bound the steps of an attach and a detach.
	Deadlines Deadlines
}

// Deadlines bound single steps. A zero one stands for its default.
type Deadlines struct {
	Prepare   time.Duration // default 10 s, as long as a busy guest's session may be silent
	Plug      time.Duration // default 15 s
	Move      time.Duration // default 15 s; a guest that boots is slow to find a device
	Configure time.Duration // default 10 s
	Release   time.Duration // default 3 s; an agent that is silent doesn't hold up the unplug for longer
	Unplug    time.Duration // default 20 s; without ACPI hotplug a guest takes 6 s
	Park      time.Duration // default 5 s; of Host.Park and Guest.Retrieve, then the vNIC is unplugged
	Query     time.Duration // default 5 s; of Host.Ports and Guest.NICs
	Store     time.Duration // default 10 s
	Network   time.Duration // default 15 s; of Host.SetNetwork and Host.RemoveNetwork
	VM        time.Duration // default 15 s; of VMs.AddVM and VMs.RemoveVM
}

func (c Config) complete() (Config, error) {
	switch {
	case c.Store == nil:
		return c, errors.New("no store is configured")
	case c.Host == nil || c.Guest == nil || c.VMs == nil:
		return c, errors.New("a half is missing: Host, Guest and VMs are all required")
	case c.Cluster != nil:
		if err := c.Cluster.check(); err != nil {
			return c, err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &c.Deadlines
	d.Prepare = cmp.Or(d.Prepare, 10*time.Second)
	d.Plug = cmp.Or(d.Plug, 15*time.Second)
	d.Move = cmp.Or(d.Move, 15*time.Second)
	d.Configure = cmp.Or(d.Configure, 10*time.Second)
	d.Release = cmp.Or(d.Release, 3*time.Second)
	d.Unplug = cmp.Or(d.Unplug, 20*time.Second)
	d.Park = cmp.Or(d.Park, 5*time.Second)
	d.Query = cmp.Or(d.Query, 5*time.Second)
	d.Store = cmp.Or(d.Store, 10*time.Second)
	d.Network = cmp.Or(d.Network, 15*time.Second)
	d.VM = cmp.Or(d.VM, 15*time.Second)
	return c, nil
}
