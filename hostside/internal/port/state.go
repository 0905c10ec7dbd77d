package port

import (
	"context"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// Bridged returns the vNICs that have a tap, and whether it is a port of a
// bridge, whichever that is.
func (l *Links) Bridged(context.Context) (map[vnic.ID]bool, error) {
	links, err := l.nl.HostLinks(vnic.Prefix)
	if err != nil {
		return nil, err
	}
	taps := make(map[vnic.ID]bool, len(links))
	for _, link := range links {
		if id, ok := vnic.IDFromName(link.Name); ok && id.TapName() == link.Name && link.Kind == kindTap {
			taps[id] = link.Master != 0
		}
	}
	return taps, nil
}

// Networks returns the name and the bridge of each network whose bridge brfuse
// made, by the bridges' aliases.
func (l *Links) Networks(context.Context) ([]vnic.Network, error) {
	links, err := l.nl.HostLinks("")
	if err != nil {
		return nil, err
	}
	var networks []vnic.Network
	for _, link := range links {
		if name, ok := strings.CutPrefix(link.Alias, alias("")); ok && link.Kind == kindBridge {
			networks = append(networks, vnic.Network{Name: name, Bridge: link.Name})
		}
	}
	return networks, nil
}
