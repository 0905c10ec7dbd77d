// Package rig puts together what the network benchmarks measure: hypervisors,
// each a network namespace with a brfused of its own, a guest on each, and the
// topologies by which a client reaches a server in guest a.
//
// The rig "host" has one guest, and the client is a process in the hypervisor's
// namespace. The rig "pair" has two, on a hypervisor each; a veth joins the
// hypervisors, and the client is in guest b in the same kind of place as the
// server in guest a.
//
// Every guest has a NIC of its own, as a user's VM has: a virtio NIC with QEMU's
// default options on a tap of the hypervisor's bridge. It is plugged anew for each
// topology that uses it, as brfuse's is, and stays while another one carries the
// traffic. It is behind the same PCI bridge as brfuse's, so that both have their
// interrupts and notifications by the same way.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/bench/internal/pin"
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/internal/window"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// toolSource is the main package of the guests' program.
const toolSource = "./bench/guest"

// downLimit bounds what has to be taken down although its context has ended.
const downLimit = 30 * time.Second

// Options say what a rig is made of.
type Options struct {
	// Pair has two guests instead of one.
	Pair bool
	// CPUs is the number of virtual CPUs of each guest. Default: 1.
	CPUs int
	// Spread has vCPUs, and what else there is, run on CPUs of their own, as far as the
	// machine has them; see [pin.Divide]. The calling process, and what it starts, is one
	// of the rest.
	Spread bool
	// QEMUArgs returns more arguments of QEMU for the guest of that name. Default: none.
	QEMUArgs func(vm string) []string
	// Append is added to the command line of the guests' kernel.
	Append string
	// Image is what the guests have beside what topologies and loads need.
	Image vmlab.Image
	// Progress is told what is being done. Default: nobody is.
	Progress func(what string)
}

// Rig is what is measured. One topology is up at a time. It isn't safe for
// concurrent use.
type Rig struct {
	opts    Options
	lab     *vmlab.Lab
	scratch *vmlab.Scratch
	tool    string // the guests' program, here
	layout  pin.Layout
	nodes   []*node
	up      *Setup
}

// New builds a rig, which takes root. It takes some seconds for each guest.
func New(ctx context.Context, o Options) (*Rig, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	r := &Rig{opts: o}
	if err := r.setUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("set up rig %s: %w", r.Name(), err), r.Close()) //nolint:contextcheck // has to be done when ctx has ended too
	}
	return r, nil
}

// Name is what samples call the rig: [result.Host] or [result.Pair].
func (r *Rig) Name() string {
	if r.opts.Pair {
		return result.Pair
	}
	return result.Host
}

// Guests returns the names of the guests of a rig: that of the server first.
func Guests(pair bool) []string {
	if pair {
		return []string{"a", "b"}
	}
	return []string{"a"}
}

func (r *Rig) setUp(ctx context.Context) (err error) {
	if r.lab, err = vmlab.Open(ctx, vmlab.Options{}); err != nil {
		return err
	}
	if r.scratch, err = vmlab.NewScratch("brfuse-bench"); err != nil {
		return err
	}
	if r.tool, err = r.lab.GoBuild(ctx, toolSource); err != nil {
		return err
	}
	if err := r.spread(); err != nil {
		return err
	}
	r.opts.Progress("boot the guests of rig " + r.Name())
	for i, name := range Guests(r.opts.Pair) {
		r.nodes = append(r.nodes, &node{rig: r, name: name, number: i})
	}
	if err := r.each(func(n *node) error { return n.boot(ctx) }); err != nil {
		return err
	}
	if r.opts.Pair {
		if err := r.join(); err != nil {
			return fmt.Errorf("join the hypervisors: %w", err)
		}
	}
	return r.each(func(n *node) error { return n.connect(ctx) })
}

// spread decides where threads run, and pins this process, and so what it starts.
func (r *Rig) spread() error {
	if !r.opts.Spread {
		return nil
	}
	all, err := pin.Allowed()
	if err != nil {
		return err
	}
	r.layout = pin.Divide(all, len(Guests(r.opts.Pair)), max(r.opts.CPUs, 1))
	if len(r.layout.Nodes) == 0 {
		return nil
	}
	return pin.Process(os.Getpid(), r.layout.Rest)
}

// pinned says where threads run, "" when that is up to the rig's user.
func (r *Rig) pinned() string {
	if !r.opts.Spread {
		return ""
	}
	return r.layout.String()
}

// each calls f with all nodes at once.
func (r *Rig) each(f func(n *node) error) error {
	errs := make([]error, len(r.nodes))
	var wg sync.WaitGroup
	for i, n := range r.nodes {
		wg.Go(func() {
			if err := f(n); err != nil {
				errs[i] = fmt.Errorf("hypervisor of guest %s: %w", n.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close takes down what is up, and ends guests and daemons.
func (r *Rig) Close() error {
	var errs []error
	if r.up != nil {
		ctx, cancel := context.WithTimeout(context.Background(), downLimit)
		errs = append(errs, r.up.Down(ctx))
		cancel()
	}
	errs = append(errs, r.each((*node).close))
	if len(r.layout.Nodes) > 0 {
		errs = append(errs, pin.Process(os.Getpid(), r.layout.All))
	}
	return errors.Join(append(errs, r.scratch.Remove())...)
}

// VMs returns the guests: that of the server first.
func (r *Rig) VMs() []*vmlab.VM {
	var vms []*vmlab.VM
	for _, n := range r.nodes {
		vms = append(vms, n.vm)
	}
	return vms
}

// Hosts returns the places of the hypervisors, in the order of their guests.
func (r *Rig) Hosts() []*Place {
	var all []*Place
	for _, n := range r.nodes {
		all = append(all, n.hostPlace())
	}
	return all
}

// Listen has the guest of a pair's client tell when the measured time of a load begins
// and ends; see package window. begin is called then, and what it returned.
func (r *Rig) Listen(ctx context.Context, begin func() (end func())) (*window.Listener, error) {
	n := r.nodes[len(r.nodes)-1]
	return window.Listen(ctx, n.site.Net.NS(), n.hostAddr(), begin)
}
