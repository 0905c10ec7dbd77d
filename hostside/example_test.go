package hostside_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/brfuse/brfuse/hostside"
	"github.com/brfuse/brfuse/vnic"
)

// A vNIC for a VM that was started with `-qmp unix:/run/vm1.qmp,server,nowait`.
func ExampleHost_Plug() {
	ctx := context.Background()
	h, err := hostside.New(hostside.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()

	network := vnic.Network{Name: "pods", Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}, Masquerade: true}
	err = errors.Join(
		h.SetNetwork(ctx, network),
		h.AddVM(ctx, vnic.VM{Name: "vm1", QMP: "/run/vm1.qmp", Channel: "/run/vm1.agent"}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	port, err := h.Plug(ctx, vnic.Plug{
		VM: "vm1", ID: vnic.NewID(), Network: "pods", MAC: vnic.NewMAC(),
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2")},
	})
	if errors.Is(err, vnic.ErrNoSlot) {
		fmt.Println("boot the vm with more slots")
		return
	}
	fmt.Println(port.Slot, err)
}

// A VM that isn't there yet is no error: its events tell when it is.
func ExampleHost_Events() {
	h, err := hostside.New(hostside.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()
	if err := h.AddVM(context.Background(), vnic.VM{Name: "vm1", QMP: "/nonexistent/qmp", Channel: "/nonexistent/agent"}); err != nil {
		fmt.Println(err)
		return
	}
	for ev := range h.Events() {
		if ev.Kind == vnic.EventVMGone {
			fmt.Println(ev.VM, "is gone")
			break
		}
	}
}
