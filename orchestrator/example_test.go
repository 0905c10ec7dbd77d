package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// A world in memory stands for hypervisors and guests here; a daemon gives a
// hostside.Host and its links to the agents instead.
func Example() {
	ctx := context.Background()
	world := orchestratortest.New()
	world.Boot("vm1", "web")
	halves := world.Conn()

	o, err := orchestrator.New(ctx, orchestrator.Config{Store: memstore.New(), Host: halves, Guest: halves, VMs: halves})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer o.Close()
	halves.Notify(o.Notify)

	err = o.AddVM(ctx, vnic.VM{Name: "vm1", QMP: "/run/vm1.qmp", Channel: "/run/vm1.agent"})
	if err != nil {
		fmt.Println(err)
	}
	_, err = o.CreateNetwork(ctx, vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	if err != nil {
		fmt.Println(err)
	}

	web := vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Network: "blue"}
	a, err := o.Attach(ctx, web)
	fmt.Println(a.Phase, a.Leases, err)

	db := web
	db.Pod = "db"
	_, err = o.Attach(ctx, db)
	fmt.Println(err, errors.Is(err, vnic.ErrUnknownPod))

	a, err = o.Detach(ctx, a.ID)
	fmt.Println(a.Phase, err)
	// Output:
	// ready [10.1.0.2/24] <nil>
	// attach db/eth0 in vm1: phase leased: prepare: netns db: unknown pod true
	// released <nil>
}
