package topology

import (
	"fmt"
	"strings"
)

// Ids of the devices: unlike those of vNICs they have a dash.
const (
	portID    = "brf-rp%d"
	bridgeID  = "brf-br%d"
	serialID  = "brf-serial"
	chardevID = "brf-agent"
	agentID   = "brf-agent-port"
)

// firstChassis keeps clear of the numbers of other root ports.
const firstChassis = 100

// QEMUArgs returns the arguments to add to those of a q35 machine, one string a
// word. Addresses on pcie.0 are left to QEMU.
func (l Layout) QEMUArgs() []string {
	var args []string
	for i := 1; i <= l.Bridges; i++ {
		port := fmt.Sprintf(portID, i)
		args = append(args,
			"-device", fmt.Sprintf("pcie-root-port,id=%s,bus=pcie.0,chassis=%d", port, firstChassis+i),
			"-device", fmt.Sprintf("pcie-pci-bridge,id="+bridgeID+",bus=%s", i, port))
	}
	return append(args,
		"-device", "virtio-serial-pci,id="+serialID,
		"-chardev", "socket,id="+chardevID+",path="+escape(l.Channel)+",server=on,wait=off",
		// Without an id QEMU sends no VSERPORT_CHANGE for the port.
		"-device", "virtserialport,bus="+serialID+".0,chardev="+chardevID+",name="+ChannelName+",id="+agentID,
		"-qmp", "unix:"+escape(l.QMP)+",server=on,wait=off")
}

// escape writes a value of a QEMU option: a comma is doubled.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
