// Command attach gives a pod a vNIC by library calls alone: it joins the host
// half, the link to the guest's agent and the orchestrator, as brfused does,
// without a daemon. It publishes ports of the pod on this host, and limits what
// the pod may send. It takes all of it away again when it is interrupted.
//
//	attach -qmp vm1.qmp -channel vm1.agent -pod web -publish 8080:80 -egress 100000000
//
// It runs as root on the hypervisor, beside no brfused for the same VM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/hostside"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/vnic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "attach:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	vm := vnic.VM{Name: "vm1"}
	flag.StringVar(&vm.QMP, "qmp", "", "QEMU's QMP socket")
	flag.StringVar(&vm.Libvirt, "libvirt", "", "the domain instead, such as qemu:///system/NAME")
	flag.StringVar(&vm.Channel, "channel", "", "socket of the agent's channel")
	pod := flag.String("pod", "", "name of the pod's network namespace in the guest")
	var ports []vnic.PortMapping
	flag.Func("publish", "TCP port of this host and of the pod, such as 8080:80; repeatable", func(text string) error {
		m := vnic.PortMapping{Protocol: vnic.TCP}
		if _, err := fmt.Sscanf(text, "%d:%d", &m.HostPort, &m.Port); err != nil {
			return err
		}
		ports = append(ports, m)
		return nil
	})
	var limits vnic.Bandwidth
	flag.Uint64Var(&limits.Egress.Bits, "egress", 0, "bits per second that the pod may send (default unlimited)")
	flag.Parse()

	dir, err := os.MkdirTemp("", "attach")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	sys, err := newSystem(ctx, filepath.Join(dir, "state.db"), log)
	if err != nil {
		return err
	}
	defer sys.close()

	if err := sys.orch.AddVM(ctx, vm); err != nil {
		return err
	}
	network := vnic.Network{Name: "example", Subnets: []netip.Prefix{netip.MustParsePrefix("10.230.0.0/24")}, Masquerade: true}
	if _, err := sys.orch.CreateNetwork(ctx, network); err != nil {
		return err
	}
	a, err := sys.orch.Attach(ctx, vnic.Request{
		Key: vnic.Key{VM: vm.Name, Pod: *pod, Interface: "eth0"}, Network: network.Name, Ports: ports, Bandwidth: limits,
	})
	if err != nil {
		return err
	}
	fmt.Printf("pod %s has %s on %s, published %v\n", *pod, a.Leases[0], a.MAC, a.Request.Ports)
	<-ctx.Done()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := sys.orch.Detach(ctx, a.ID); err != nil {
		return err
	}
	return sys.orch.RemoveNetwork(ctx, network.Name)
}

// system is what an orchestrator works with. It tells both halves of VMs.
type system struct {
	store *boltstore.Store
	host  *hostside.Host
	links *guestlink.Links
	orch  *orchestrator.Orchestrator
}

func newSystem(ctx context.Context, state string, log *slog.Logger) (s *system, err error) {
	s = &system{}
	if s.store, err = boltstore.Open(state); err != nil {
		return nil, err
	}
	if s.host, err = hostside.New(hostside.Config{Log: log}); err != nil { //nolint:contextcheck // it has a life of its own, until Close
		return nil, errors.Join(err, s.store.Close())
	}
	// Events of both halves go to the orchestrator as soon as it is there.
	events := make(chan vnic.Event, 16)
	s.links = guestlink.New(guestlink.Config{Log: log, OnEvent: func(ev vnic.Event) {
		select {
		case events <- ev:
		case <-ctx.Done():
		}
	}})
	s.orch, err = orchestrator.New(ctx, orchestrator.Config{Store: s.store, Host: s.host, Guest: s.links, VMs: s, Log: log})
	if err != nil {
		return nil, errors.Join(err, s.links.Close(), s.host.Close(), s.store.Close())
	}
	go func() {
		for {
			select {
			case ev, ok := <-s.host.Events():
				if !ok {
					return
				}
				s.orch.Notify(ev)
			case ev := <-events:
				s.orch.Notify(ev)
			}
		}
	}()
	return s, nil
}

func (s *system) close() {
	for _, c := range []interface{ Close() error }{s.orch, s.links, s.host, s.store} {
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "attach:", err)
		}
	}
}

// AddVM implements orchestrator.VMs.
func (s *system) AddVM(ctx context.Context, vm vnic.VM) error {
	if err := s.host.AddVM(ctx, vm); err != nil {
		return err
	}
	return s.links.AddVM(ctx, vm)
}

// RemoveVM implements orchestrator.VMs.
func (s *system) RemoveVM(ctx context.Context, name string) error {
	return errors.Join(s.links.RemoveVM(ctx, name), s.host.RemoveVM(ctx, name))
}
