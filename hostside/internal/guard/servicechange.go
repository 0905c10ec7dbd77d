package guard

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// Change is what a call of [Guard.SetServices] came to.
type Change struct {
	// Problems are services and targets that are not in force, and why: a
	// [vnic.ErrPortTaken] or a [vnic.ErrUnsupported].
	Problems []error

	ended map[serviceKey]map[netip.AddrPort]bool // where connections may go on to, and should not
	begun map[serviceKey]bool                    // ports of UDP that led nowhere before
}

// changeOf compares services. Of a target whose source of what it gets has changed,
// such as one that has moved to another host, connections have ended as well.
func changeOf(old, now map[serviceKey]served, problems []error) Change {
	c := Change{problems, map[serviceKey]map[netip.AddrPort]bool{}, map[serviceKey]bool{}}
	for key, s := range old {
		if s.equal(now[key]) {
			continue
		}
		stays := map[netip.AddrPort]bool{}
		for _, t := range now[key].targets {
			stays[t] = now[key].sources[t.Addr()] == s.sources[t.Addr()]
		}
		for _, t := range s.targets {
			if !stays[t] {
				if c.ended[key] == nil {
					c.ended[key] = map[netip.AddrPort]bool{}
				}
				c.ended[key][t] = true
			}
		}
	}
	for key := range now {
		// Who sends TCP to a port that nobody has is told so, and begins anew.
		if _, had := old[key]; !had && key.protocol == unix.IPPROTO_UDP {
			c.begun[key] = true
		}
	}
	return c
}

// Families returns for which families connections are stale: false is IPv4 and true
// is IPv6, as [rtnl.Conntrack.Forget] has it.
func (c Change) Families() []bool {
	var families []bool
	for _, v6 := range []bool{false, true} {
		is := func(key serviceKey) bool { return key.v6 == v6 }
		if slices.ContainsFunc(slices.AppendSeq(slices.Collect(maps.Keys(c.ended)), maps.Keys(c.begun)), is) {
			families = append(families, v6)
		}
	}
	return families
}

// Stale returns what tells which connections the change has made stale: those to
// targets that are gone, and those of UDP to a port that has become a service's.
// Translation is decided once for each connection, and one of UDP lasts as long as
// somebody sends. Local are the host's own addresses.
func (c Change) Stale(local []netip.Addr) func(rtnl.Flow) bool {
	own := make(map[netip.Addr]bool, len(local))
	for _, a := range local {
		own[a] = true
	}
	return func(f rtnl.Flow) bool {
		key := serviceKey{f.Destination.Addr().Is6(), f.Protocol, f.Destination.Port()}
		if f.Target == f.Destination {
			return c.begun[key] && own[f.Destination.Addr()]
		}
		return c.ended[key][f.Target]
	}
}
