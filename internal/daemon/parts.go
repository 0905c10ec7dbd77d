package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/hostside"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// parts are what a daemon consists of.
type parts struct {
	log   *slog.Logger
	store store.Store
	host  *hostside.Host
	links *guestlink.Links
	names *names.Server // nil: no names are served
	orch  *orchestrator.Orchestrator
	// orders are the guests', which wait until orch is there.
	orders *orders
	fed    chan struct{} // closed when the host's events are all passed on
}

func newParts(ctx context.Context, cfg Config, tell *telemetry) (_ *parts, err error) {
	p := &parts{log: cfg.Log, fed: make(chan struct{})}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	var common shared
	if p.store, common, err = openStore(ctx, cfg); err != nil {
		return nil, err
	}
	p.store = tell.store(p.store)
	if p.host, err = newHost(cfg); err != nil { //nolint:contextcheck // it has a life of its own, until Close
		return nil, err
	}
	cluster, err := p.cluster(common, cfg)
	if err != nil {
		return nil, err
	}
	served := p.serveNames(cfg)
	started := make(chan struct{})
	p.orders = &orders{log: cfg.Log, ready: started, ports: cfg.PublishPorts, names: p.names}
	// The orchestrator adds its VMs while it starts, so events and orders may come
	// before New returns: they wait here.
	events := make(chan vnic.Event)
	stop := make(chan struct{})
	p.links = guestlink.New(guestlink.Config{Log: cfg.Log, Orders: p.orders, OnEvent: func(ev vnic.Event) {
		select {
		case events <- ev:
		case <-stop:
		}
	}})
	ready := make(chan *orchestrator.Orchestrator, 1)
	go p.feed(events, ready, stop)
	p.orch, err = orchestrator.New(ctx, orchestrator.Config{
		Store: p.store, Host: p.host, Guest: p.links, VMs: p, Migrator: p.host, Log: cfg.Log, Cluster: cluster,
		Names: served, Services: p.host, Observers: tell.observers(),
	})
	if err != nil {
		close(ready)
		return nil, err
	}
	ready <- p.orch
	p.orders.orch = p.orch
	close(started)
	return p, nil
}

// feed passes events of both halves on to the orchestrator.
func (p *parts) feed(links <-chan vnic.Event, ready <-chan *orchestrator.Orchestrator, stop chan<- struct{}) {
	defer close(p.fed)
	defer close(stop)
	orch := <-ready
	if orch == nil {
		return
	}
	host := p.host.Events()
	for host != nil {
		select {
		case ev, ok := <-host:
			if !ok {
				return
			}
			p.hint(ev)
			orch.Notify(ev)
		case ev := <-links:
			orch.Notify(ev)
		}
	}
}

// hint tells the links what the hypervisor knows sooner than they.
func (p *parts) hint(ev vnic.Event) {
	switch ev.Kind {
	case vnic.EventVMUp:
		p.links.Kick(ev.VM)
	case vnic.EventAgentOff:
		p.links.Drop(ev.VM)
	}
}

// close stops the parts, the ones that use others first.
func (p *parts) close() {
	if p.orch != nil {
		p.logClose("orchestrator", p.orch.Close())
	}
	if p.names != nil {
		p.names.Close()
	}
	if p.host != nil {
		p.logClose("host", p.host.Close())
	}
	if p.links != nil {
		<-p.fed
		p.logClose("guest links", p.links.Close())
	}
	if p.store != nil {
		p.logClose("store", p.store.Close())
	}
}

func (p *parts) logClose(what string, err error) {
	if err != nil {
		p.log.Warn("close", "part", what, "error", err)
	}
}

// AddVM tells both halves of a VM. It implements [orchestrator.VMs].
func (p *parts) AddVM(ctx context.Context, vm vnic.VM) error {
	if err := p.host.AddVM(ctx, vm); err != nil {
		return err
	}
	if err := p.links.AddVM(ctx, vm); err != nil {
		return errors.Join(err, p.host.RemoveVM(ctx, vm.Name))
	}
	return nil
}

// RemoveVM makes both halves forget a VM. It implements [orchestrator.VMs].
func (p *parts) RemoveVM(ctx context.Context, name string) error {
	return errors.Join(known(p.links.RemoveVM(ctx, name)), known(p.host.RemoveVM(ctx, name)))
}

// known is err, but that a half doesn't know a VM: it must not hide what else
// went wrong with the other half.
func known(err error) error {
	if errors.Is(err, vnic.ErrUnknownVM) {
		return nil
	}
	return err
}

// Channel implements [Prober].
func (p *parts) Channel(ctx context.Context, domain string) (string, error) {
	return hostside.LibvirtChannel(ctx, domain)
}

// Resolve implements [Prober].
func (p *parts) Resolve(ctx context.Context, vm, runtime, container string) (vnic.Container, error) {
	return p.links.Resolve(ctx, vm, runtime, container)
}

// Check implements [Prober].
func (p *parts) Check(ctx context.Context, vm string, m vnic.Move) error {
	return p.links.Check(ctx, vm, m)
}

// stateLimit bounds how long listing VMs waits for one that is silent.
const stateLimit = 2 * time.Second

// VMState implements [Prober].
func (p *parts) VMState(ctx context.Context, vm vnic.VM) *brfusev1.VM {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	m := &brfusev1.VM{Name: vm.Name, Qmp: vm.QMP, Libvirt: vm.Libvirt, Channel: vm.Channel, State: "gone", Agent: "absent"}
	var info guestlink.AgentInfo
	var agentErr error
	asked := make(chan struct{})
	go func() { // a hypervisor that is silent doesn't use up the agent's time
		defer close(asked)
		info, agentErr = p.links.Info(ctx, vm.Name)
	}()
	switch st, err := p.host.Status(ctx, vm.Name); {
	case err != nil && !errors.Is(err, vnic.ErrUnknownVM):
		p.log.Debug("state of vm", "vm", vm.Name, "error", err)
		m.State = "silent"
	case st.Moving:
		m.State = "migrating"
	case st.Running:
		m.State, m.QemuVersion, m.Hotplug = "running", st.Version, st.Hotplug
		m.SlotsUsed, m.SlotsTotal = clampUint32(st.SlotsUsed), clampUint32(st.SlotsTotal)
	case err == nil:
		cancel() // gone, and its agent too
	}
	if <-asked; agentErr == nil {
		m.Agent, m.AgentVersion = "connected", info.Version
	}
	return m
}
