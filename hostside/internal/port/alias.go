package port

import (
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// Alias is what the alias of a tap tells people, and the next daemon.
type Alias struct {
	VM      string // that has the vNIC
	Network string // that it was made for
	Parked  bool   // it is in no bridge because the host took it out, and waits for its next use
}

const (
	aliasVM      = "brfuse vm "
	aliasNetwork = " network "
	aliasParked  = " parked"
)

func aliasOf(p vnic.Plug) Alias { return Alias{VM: p.VM, Network: p.Network, Parked: p.Parked} }

// String returns the alias as it is written.
func (a Alias) String() string {
	s := aliasVM + a.VM + aliasNetwork + a.Network
	if a.Parked {
		s += aliasParked
	}
	return s
}

// ParseAlias reads the alias that a tap was given.
func ParseAlias(s string) (a Alias, ok bool) {
	rest, ok := strings.CutPrefix(s, aliasVM)
	if !ok {
		return a, false
	}
	rest, a.Parked = strings.CutSuffix(rest, aliasParked)
	a.VM, a.Network, ok = strings.Cut(rest, aliasNetwork)
	return a, ok
}

// parked returns an alias that says that the tap is parked, or no longer is. An
// alias of somebody else's making stays.
func parked(alias string, is bool) string {
	a, ok := ParseAlias(alias)
	if !ok {
		return alias
	}
	a.Parked = is
	return a.String()
}
