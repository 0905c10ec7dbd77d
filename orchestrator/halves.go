package orchestrator

import "github.com/brfuse/brfuse/vnic"

// move is what the guest half is told of an attachment. What is handed over gets
// its addresses and routes from the engine that takes it.
func move(a vnic.Attachment) vnic.Move {
	m := vnic.Move{
		ID: a.VNIC(), MAC: a.MAC, Netns: a.Request.Netns, Interface: a.Request.Interface,
		MTU: a.MTU, Queues: a.Request.Queues, Handover: a.Request.Handover,
	}
	if !m.Handover {
		m.Addresses, m.Routes = a.Leases, a.Routes()
	}
	return m
}

// plug is what the host half is told of an attachment.
func plug(a vnic.Attachment) vnic.Plug {
	p := vnic.Plug{
		VM: a.Request.VM, ID: a.VNIC(), Network: a.Request.Network, MAC: a.MAC,
		MTU: a.MTU, Queues: a.Request.Queues, Ports: a.Request.Ports, Bandwidth: a.Request.Bandwidth,
	}
	for _, l := range a.Leases {
		p.Addresses = append(p.Addresses, l.Addr())
	}
	return p
}
