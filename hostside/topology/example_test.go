package topology_test

import (
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/hostside/topology"
)

func ExamplePlan() {
	l, err := topology.Plan(20)
	if err != nil {
		fmt.Println(err)
		return
	}
	l.QMP, l.Channel = "/run/vm1.qmp", "/run/vm1.agent"
	fmt.Println(l.Bridges, "bridge,", l.Slots, "slots")
	fmt.Println(strings.Join(l.QEMUArgs()[:4], " "))
	// Output:
	// 1 bridge, 31 slots
	// -device pcie-root-port,id=brf-rp1,bus=pcie.0,chassis=101 -device pcie-pci-bridge,id=brf-br1,bus=brf-rp1
}
