// Command orchestrator keeps replicas of a pod attached to a network, by library calls
// alone: replicas web-0, web-1 and so on each get a vNIC in one of the VMs that have a
// network namespace of that name, the VM with the fewest first. A replica whose pod or
// VM is gone gets one in another VM. What an engine does to start the pods is not shown.
//
//	orchestrator -replicas 3 -vm vm1=/run/vm1.qmp,/run/vm1.agent -vm vm2=/run/vm2.qmp,/run/vm2.agent
//
// It runs as root on the hypervisor, in the place of brfused. When it ends, the pods keep
// their vNICs, and it goes on with them when it starts again; -replicas 0 detaches all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/guestside/guestlink" //nolint:depguard // the rule is for the package of this name
	"github.com/brfuse/brfuse/hostside"            //nolint:depguard // as above
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/vnic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "orchestrator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	k := keeper{app: "web", network: "example", retry: 5 * time.Second, log: slog.Default()}
	flag.IntVar(&k.replicas, "replicas", 1, "how many")
	state := flag.String("state", "/var/lib/brfuse/example.db", "database file")
	flag.Func("vm", "NAME=QMP,CHANNEL of a VM, by the paths of its sockets; repeatable", func(text string) error {
		name, sockets, _ := strings.Cut(text, "=")
		qmp, channel, ok := strings.Cut(sockets, ",")
		if !ok {
			return errors.New("want NAME=QMP,CHANNEL")
		}
		k.vms = append(k.vms, vnic.VM{Name: name, QMP: qmp, Channel: channel})
		return nil
	})
	flag.Parse()

	db, err := boltstore.Open(*state)
	if err != nil {
		return err
	}
	defer db.Close()
	host, err := hostside.New(hostside.Config{Log: k.log}) //nolint:contextcheck // it has a life of its own, until Close
	if err != nil {
		return err
	}
	defer host.Close()
	events := make(chan vnic.Event) // of the guests; they wait for the orchestrator
	guests := guestlink.New(guestlink.Config{Log: k.log, OnEvent: func(ev vnic.Event) {
		select {
		case events <- ev:
		case <-ctx.Done():
		}
	}})
	defer guests.Close()
	k.orch, err = orchestrator.New(ctx, orchestrator.Config{Store: db, Host: host, Guest: guests, VMs: halves{host, guests}, Log: k.log})
	if err != nil {
		return err
	}
	defer k.orch.Close()
	go func() {
		for {
			select {
			case ev := <-events:
				k.orch.Notify(ev)
			case ev, ok := <-host.Events():
				if !ok {
					return
				}
				k.orch.Notify(ev)
			}
		}
	}()
	return k.run(ctx)
}

// halves tell both halves of VMs.
type halves struct {
	host   *hostside.Host
	guests *guestlink.Links
}

// AddVM implements [orchestrator.VMs].
func (h halves) AddVM(ctx context.Context, vm vnic.VM) error {
	if err := h.host.AddVM(ctx, vm); err != nil {
		return err
	}
	return h.guests.AddVM(ctx, vm)
}

// RemoveVM implements [orchestrator.VMs].
func (h halves) RemoveVM(ctx context.Context, name string) error {
	return errors.Join(h.guests.RemoveVM(ctx, name), h.host.RemoveVM(ctx, name))
}
