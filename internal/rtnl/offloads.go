package rtnl

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// offloads are those that ethtool asks for one by one (ETHTOOL_GTSO and so on): the
// value is in the word behind the command.
var offloads = []struct {
	name string
	cmd  uint32
}{
	{"rx-csum", unix.ETHTOOL_GRXCSUM},
	{"tx-csum", unix.ETHTOOL_GTXCSUM},
	{"tso", unix.ETHTOOL_GTSO},
	{"gso", unix.ETHTOOL_GGSO},
	{"gro", unix.ETHTOOL_GGRO},
}

// Queues tells how many queue pairs a link uses and could use at most; 0: the
// driver doesn't tell.
func (c *Conn) Queues(name string) (used, most int) {
	ch := channels{cmd: unix.ETHTOOL_GCHANNELS}
	if c.ethtool(name, unsafe.Pointer(&ch)) != nil {
		return 0, 0
	}
	return int(ch.combinedCount), int(ch.maxCombined)
}

// Offloads tells which of "rx-csum", "tx-csum", "tso", "gso" and "gro" a link has
// turned on. What the driver doesn't tell is off.
func (c *Conn) Offloads(name string) []string {
	var on []string
	for _, o := range offloads {
		v := [2]uint32{o.cmd}
		if c.ethtool(name, unsafe.Pointer(&v)) == nil && v[1] != 0 {
			on = append(on, o.name)
		}
	}
	return on
}
