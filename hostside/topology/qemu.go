package topology

import (
	"fmt"
	"strings"
)

// Ids of the devices: unlike those of vNICs they have a dash.
const (
	portID    = "brf-rp%d"
	topID     = "brf-top"
	bridgeID  = "brf-br%d"
	serialID  = "brf-serial"
	chardevID = "brf-agent"
	agentID   = "brf-agent-port"
)

// firstChassis keeps clear of the numbers of other root ports.
const firstChassis = 100

// Bridges that don't have a root port each are kept from wanting I/O windows, of
// which there are sixteen: without hotplug controller of their own, firmware
// gives them none. It would then give them no memory window either, but for a
// device with a small memory BAR that stands in each. That one has no interrupt,
// and takes the device number that the hotplug controller would.
const (
	placeholder = "pvpanic-pci"
	noSHPC      = "shpc=off,msi=off"
)

// QEMUArgs returns the arguments to add to those of the machine, one string a
// word. Addresses on its root bus are left to QEMU.
func (l Layout) QEMUArgs() []string {
	args := append(l.bridgeArgs(),
		"-device", "virtio-serial-pci,id="+serialID,
		"-chardev", "socket,id="+chardevID+",path="+escape(l.Channel)+",server=on,wait=off",
		// Without an id QEMU sends no VSERPORT_CHANGE for the port.
		"-device", "virtserialport,bus="+serialID+".0,chardev="+chardevID+",name="+ChannelName+",id="+agentID)
	return append(args, l.qmpArgs()...)
}

func (l Layout) qmpArgs() []string {
	if l.QMP == "" {
		return nil
	}
	return []string{"-qmp", "unix:" + escape(l.QMP) + ",server=on,wait=off"}
}

func (l Layout) bridgeArgs() (args []string) {
	parent := "pci.0"
	if l.kind() == nested {
		port := fmt.Sprintf(portID, 1)
		args = append(args,
			"-device", fmt.Sprintf("pcie-root-port,id=%s,bus=pcie.0,chassis=%d", port, firstChassis+1),
			"-device", "pcie-pci-bridge,id="+topID+",bus="+port)
		parent = topID
	}
	for i := 1; i <= l.Bridges; i++ {
		id := fmt.Sprintf(bridgeID, i)
		switch l.kind() {
		case flat:
			port := fmt.Sprintf(portID, i)
			args = append(args,
				"-device", fmt.Sprintf("pcie-root-port,id=%s,bus=pcie.0,chassis=%d", port, firstChassis+i),
				"-device", "pcie-pci-bridge,id="+id+",bus="+port)
			continue
		case nested:
			args = append(args, "-device", fmt.Sprintf("pci-bridge,id=%s,bus=%s,addr=%#x,chassis_nr=%d,%s", id, parent, i, firstChassis+i, noSHPC))
		case onRoot:
			args = append(args, "-device", fmt.Sprintf("pci-bridge,id=%s,bus=%s,chassis_nr=%d,%s", id, parent, firstChassis+i, noSHPC))
		}
		args = append(args, "-device", placeholder+",bus="+id+",addr=0")
	}
	return args
}

// escape writes a value of a QEMU option: a comma is doubled.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
