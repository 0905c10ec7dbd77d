package netpath

import (
	"fmt"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// FindTap looks in the calling thread's namespace for the tap that a VM's NIC with
// that MAC is behind: libvirt gives a tap the NIC's MAC with fe in front; else a
// bridge has learned the NIC's MAC at a tap, if it has sent anything lately. It is
// empty when there is none. The guest can choose the MAC: what comes out is a hint.
func FindTap(mac vnic.MAC) (name string, err error) {
	c, err := rtnl.Dial()
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}()
	links, err := c.Links()
	if err != nil {
		return "", fmt.Errorf("look for the tap of %s: %w", mac, err)
	}
	taps := map[int]string{}
	of := mac
	of[0] = 0xfe
	for _, l := range links {
		if l.Kind != "tun" {
			continue
		}
		taps[l.Index] = l.Name
		if l.MAC == of {
			return l.Name, nil
		}
	}
	var ports []int
	if err := c.Do(rtnl.GetPortsOf(&ports, mac)); err != nil {
		return "", fmt.Errorf("look for the tap of %s: %w", mac, err)
	}
	for _, p := range ports {
		if taps[p] != "" {
			return taps[p], nil
		}
	}
	return "", nil
}
