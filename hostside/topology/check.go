package topology

import "fmt"

// Running is what is known of a machine that runs.
type Running struct {
	Name        string
	State       string // "running" when it answers
	ACPI        bool   // any slot is under ACPI hotplug
	Slots, Used int
	Agent       bool // connected by the channel
}

// Finding is one thing that was checked.
type Finding struct {
	OK     bool
	What   string // such as "slots"
	Detail string // what was found, and the remedy when it is not OK
}

// Check compares a machine with a wish for so many vNICs in all, those that it
// has among them. It has what it takes when all findings are OK.
func Check(r Running, vnics int) []Finding {
	if r.State != "running" {
		return []Finding{{What: "state", Detail: fmt.Sprintf("vm %s is %s: its slots aren't known; see `brfuse vm list`", r.Name, r.State)}}
	}
	findings := []Finding{{OK: true, What: "state", Detail: "running"}}
	slots := Finding{OK: r.Slots >= vnics, What: "slots", Detail: fmt.Sprintf("%d of %d in use, %d wanted", r.Used, r.Slots, vnics)}
	if !slots.OK {
		slots.Detail += fmt.Sprintf(": boot the vm with what `brfuse topology --vnics %d` prints", vnics)
	}
	plug := Finding{OK: r.ACPI, What: "hotplug", Detail: "acpi"}
	if !plug.OK {
		plug.Detail = "native: an unplug takes over 5 s; boot the vm with conventional bridges, and with ACPI hotplug on"
	}
	if r.Slots == 0 {
		plug.Detail = "no slot takes a vnic"
	}
	agent := Finding{OK: r.Agent, What: "channel", Detail: "the agent is connected"}
	if !agent.OK {
		agent.Detail = "no agent answers: give the vm the virtio-serial port " + ChannelName + ", and run brfuse-agent in it"
	}
	return append(findings, slots, plug, agent)
}
