package port

import (
	"context"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// TapState is how the tap of a vNIC is.
type TapState struct {
	Network string // that it was made for
	Bridge  string // that it is a port of; empty: of none
	Direct  bool   // it is a macvtap, which needs no bridge
	Up      bool
}

// TapOf returns the MTU of a vNIC's tap in bytes, and whether it is a port of any
// bridge. Without a tap the error is [fs.ErrNotExist].
func (l *Links) TapOf(_ context.Context, id vnic.ID) (mtu int, joined bool, err error) {
	link, err := l.tap(id)
	return link.MTU, link.Master != 0, err
}

// TapStates returns how the taps of all vNICs that have one are.
func (l *Links) TapStates(context.Context) (map[vnic.ID]TapState, error) {
	links, err := l.nl.HostLinks("")
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Index] = link.Name
	}
	taps := map[vnic.ID]TapState{}
	for _, link := range links {
		if id, ok := vnic.IDFromName(link.Name); ok && id.TapName() == link.Name && isTap(link) {
			a, _ := ParseAlias(link.Alias)
			taps[id] = TapState{Network: a.Network, Bridge: names[link.Master], Direct: link.Kind == kindMacvtap, Up: link.Up}
		}
	}
	return taps, nil
}

// Networks returns the name and the bridge of each network whose bridge brfuse
// made, by the aliases of bridges, and of tagged links that have lost theirs.
func (l *Links) Networks(context.Context) ([]vnic.Network, error) {
	links, err := l.nl.HostLinks("")
	if err != nil {
		return nil, err
	}
	var networks []vnic.Network
	for _, link := range links {
		name, ok := strings.CutPrefix(link.Alias, alias(""))
		switch {
		case ok && link.Kind == kindBridge:
			networks = append(networks, vnic.Network{Name: name, Bridge: link.Name})
		case ok && link.Kind == kindVLAN && link.Master == 0:
			networks = append(networks, vnic.Network{Name: name, Bridge: vnic.BridgeName(name)})
		}
	}
	return networks, nil
}
