package guard

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// The inet table's chains.
var (
	strays = &nftables.Chain{
		Name: "strays", Table: inetTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(-300), // before connection tracking
	}
	postrouting = &nftables.Chain{
		Name: "postrouting", Table: inetTable, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
)

// chainRules are rules for a chain.
type chainRules struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

// addChains adds chains and their rules. A chain may come up more than once.
func addChains(c *nftables.Conn, chains []chainRules) {
	for _, cr := range chains {
		if cr.rules == nil {
			c.AddChain(cr.chain)
		}
		for _, r := range cr.rules {
			c.AddRule(&nftables.Rule{Table: cr.chain.Table, Chain: cr.chain, Exprs: r})
		}
	}
}

func addBridgeTable(c *nftables.Conn, ports []Port, counted map[Reason]Count, limiting bool) error {
	c.AddTable(bridgeTable)
	for _, r := range bridgeReasons {
		c.AddObj(counterObj(bridgeTable, r, counted[r]))
	}
	for _, set := range []*nftables.Set{macSet, openSet, ipv4Set, ipv6Set} {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	addChains(c, bridgeRules())
	if !limiting {
		return nil
	}
	if err := addPolicing(c); err != nil {
		return err
	}
	for _, p := range ports {
		changeLimit(c, p.Tap, Limit{}, p.Limit)
	}
	return nil
}

func addInetTable(c *nftables.Conn, networks []vnic.Network, counted map[Reason]Count, need needs, services map[serviceKey]served) error {
	c.AddTable(inetTable)
	c.AddObj(counterObj(inetTable, ReasonStray, counted[ReasonStray]))
	bridges := make([]nftables.SetElement, 0, len(networks))
	names := make([]string, 0, len(networks))
	for _, n := range networks {
		if n.Bridge == "" {
			continue // of macvtaps
		}
		bridges = append(bridges, nftables.SetElement{Key: ifname(n.Bridge), Comment: n.Name})
		names = append(names, n.Bridge)
	}
	if err := c.AddSet(bridgesSet, nil); err != nil {
		return err
	}
	if len(bridges) > 0 {
		if err := c.SetAddElements(bridgesSet, bridges); err != nil {
			return err
		}
	}
	addChains(c, []chainRules{
		{strays, nil},
		{strays, [][]expr.Any{rule(fromTap(), drop(ReasonStray))}},
		{postrouting, nil},
	})
	if need.serving {
		if err := addServices(c, services); err != nil {
			return err
		}
	}
	if need.publishing {
		if err := addPublishing(c, names); err != nil {
			return err
		}
	}
	if need.serving {
		addDispatch(c)
	}
	for _, n := range networks {
		for _, p := range n.Subnets {
			if n.Masquerade {
				c.AddRule(&nftables.Rule{Table: inetTable, Chain: postrouting, Exprs: masquerade(p), UserData: networkNote(n, p)})
			}
		}
	}
	return nil
}

// masquerade is: from the pool, not to it, and not into a bridge of ours.
func masquerade(pool netip.Prefix) []expr.Any {
	nfproto, source, dest := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16)
	if pool.Addr().Is6() {
		nfproto, source, dest = unix.NFPROTO_IPV6, 8, 24
	}
	return rule(
		family(nfproto),
		inPool(pool, source, expr.CmpOpEq), inPool(pool, dest, expr.CmpOpNeq),
		match{
			meta(expr.MetaKeyOIFNAME),
			&expr.Lookup{SourceRegister: reg, SetName: bridgesSet.Name, SetID: bridgesSet.ID, Invert: true},
			&expr.Masq{},
		},
	)
}

func inPool(p netip.Prefix, offset uint32, op expr.CmpOp) match {
	length := p.Addr().BitLen() / 8
	mask := make([]byte, length)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return match{
		load(network, offset, uint32(length), reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(length), Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: op, Register: reg, Data: p.Masked().Addr().AsSlice()},
	}
}

// networkNote is the comment of a masquerading rule, by which a later process
// knows whose it is.
func networkNote(n vnic.Network, pool netip.Prefix) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, n.Name+" "+n.Bridge+" "+pool.String())
}

// networkOf reads a comment that networkNote wrote.
func networkOf(note []byte) (vnic.Network, bool) {
	comment, _ := userdata.GetString(note, userdata.TypeComment)
	f := strings.Fields(comment)
	if len(f) != 3 {
		return vnic.Network{}, false
	}
	pool, err := netip.ParsePrefix(f[2])
	return vnic.Network{Name: f[0], Bridge: f[1], Subnets: []netip.Prefix{pool}, Masquerade: true}, err == nil
}
