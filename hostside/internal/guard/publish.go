package guard

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Published is a port of the host that leads to a pod's.
type Published struct {
	Protocol string         // as in [vnic.PortMapping]
	Host     netip.AddrPort // the unspecified address is all of the host's of that family
	To       netip.AddrPort // the pod's
}

// Publish returns what mappings come to for a pod with those addresses: one
// [Published] for each family that the pod and the mapping have. A mapping of
// another family than the pod's is a [vnic.ErrInvalid].
func Publish(mappings []vnic.PortMapping, addresses []netip.Addr) ([]Published, error) {
	var all []Published
	for _, m := range mappings {
		before := len(all)
		for _, unspecified := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			host := m.HostIP
			if !host.IsValid() {
				host = unspecified
			}
			i := slices.IndexFunc(addresses, func(a netip.Addr) bool { return a.Is4() == unspecified.Is4() })
			if i < 0 || host.Is4() != unspecified.Is4() {
				continue
			}
			all = append(all, Published{m.Protocol, netip.AddrPortFrom(host, m.HostPort), netip.AddrPortFrom(addresses[i], m.Port)})
		}
		if len(all) == before {
			return nil, fmt.Errorf("port mapping %s: the pod has no address of that family: %w", m, vnic.ErrInvalid)
		}
	}
	slices.SortFunc(all, Published.compare)
	return all, nil
}

func (p Published) compare(o Published) int {
	return cmp.Or(cmp.Compare(p.Protocol, o.Protocol), p.Host.Compare(o.Host), p.To.Compare(o.To))
}

// The maps of the inet table lead from protocol, address and port of the host to
// address and port of a pod. An element's comment is the pod's tap.
var (
	at4  = publishedMap(5, "published4", nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService)
	at6  = publishedMap(6, "published6", nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeIP6Addr, nftables.TypeInetService)
	any4 = publishedMap(7, "published4-any", nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	any6 = publishedMap(8, "published6-any", nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

func publishedMap(id uint32, name string, pod nftables.SetDatatype, key ...nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{
		Table: inetTable, ID: id, Name: name, IsMap: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(key...), DataType: nftables.MustConcatSetType(pod, nftables.TypeInetService),
	}
}

// hairpinsSet has each network's bridge twice: what comes in by it and goes out
// by it again.
var hairpinsSet = &nftables.Set{
	Table: inetTable, ID: 9, Name: "hairpins", Concatenation: true,
	KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName),
}

var protocols = map[string]byte{vnic.TCP: unix.IPPROTO_TCP, vnic.UDP: unix.IPPROTO_UDP, vnic.SCTP: unix.IPPROTO_SCTP}

// Number returns the protocol's number in IP headers.
func (p Published) Number() byte { return protocols[p.Protocol] }

// element returns the map that p is in, and its element there.
func (p Published) element(tap string) (*nftables.Set, nftables.SetElement) {
	key := []byte{p.Number(), 0, 0, 0}
	set := any4
	switch {
	case !p.Host.Addr().IsUnspecified() && p.Host.Addr().Is4():
		set, key = at4, append(key, p.Host.Addr().AsSlice()...)
	case !p.Host.Addr().IsUnspecified():
		set, key = at6, append(key, p.Host.Addr().AsSlice()...)
	case p.Host.Addr().Is6():
		set = any6
	}
	val := append(p.To.Addr().AsSlice(), portKey(p.To.Port())...)
	return set, nftables.SetElement{Key: append(key, portKey(p.Host.Port())...), Val: val, Comment: tap}
}

// portKey is a port as part of a key, which fills whole registers.
func portKey(port uint16) []byte { return append(be16(port), 0, 0) }

// publishedOf reads an element that [Published.element] wrote.
func publishedOf(set *nftables.Set, e nftables.SetElement) (Published, bool) {
	if len(e.Key) != int(set.KeyType.Bytes) || len(e.Val) != int(set.DataType.Bytes) {
		return Published{}, false
	}
	var p Published
	for name, number := range protocols {
		if number == e.Key[0] {
			p.Protocol = name
		}
	}
	pod, ok := netip.AddrFromSlice(e.Val[:len(e.Val)-4])
	host := netip.IPv4Unspecified()
	switch set {
	case any6:
		host = netip.IPv6Unspecified()
	case at4, at6:
		host, _ = netip.AddrFromSlice(e.Key[4 : len(e.Key)-4])
	}
	p.Host = netip.AddrPortFrom(host, binary.BigEndian.Uint16(e.Key[len(e.Key)-4:]))
	p.To = netip.AddrPortFrom(pod, binary.BigEndian.Uint16(e.Val[len(e.Val)-4:]))
	return p, ok && p.Protocol != ""
}

// The chains of published ports.
var (
	dstnat = &nftables.Chain{
		Name: "dstnat", Table: inetTable, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityNATDest,
	}
	output = &nftables.Chain{
		Name: "output", Table: inetTable, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityNATDest,
	}
	chainPublished = &nftables.Chain{Name: "published", Table: inetTable}
)

// addPublishing adds maps, chains and rules of published ports. The bridges are
// those whose hairpins are masqueraded: a pod that answers another of its own
// segment, or itself, would do so past the host, which has to translate back.
func addPublishing(c *nftables.Conn, bridges []string) error {
	for _, set := range []*nftables.Set{at4, at6, any4, any6, hairpinsSet} {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	var hairpins []nftables.SetElement
	for _, b := range bridges {
		hairpins = append(hairpins, nftables.SetElement{Key: append(ifname(b), ifname(b)...)})
	}
	if len(hairpins) > 0 {
		if err := c.SetAddElements(hairpinsSet, hairpins); err != nil {
			return err
		}
	}
	local := rule(addressedToHost(), goTo(chainPublished))
	addChains(c, []chainRules{
		{dstnat, nil},
		{output, nil},
		{chainPublished, nil},
		{chainPublished, [][]expr.Any{translate(at4, true), translate(any4, false), translate(at6, true), translate(any6, false)}},
		{dstnat, [][]expr.Any{local}},
		{output, [][]expr.Any{
			rule(family(unix.NFPROTO_IPV4), bytesAre(network, 16, 127), accept()),
			rule(family(unix.NFPROTO_IPV6), bytesAre(network, 24, netip.IPv6Loopback().AsSlice()...), accept()),
			local,
		}},
		{postrouting, [][]expr.Any{hairpin()}},
	})
	return nil
}

// addressedToHost matches what has an address of the host as its destination.
func addressedToHost() match {
	return match{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: nativeUint32(unix.RTN_LOCAL)},
	}
}

// translate leads what a map has to where it says.
func translate(set *nftables.Set, withAddress bool) []expr.Any {
	// Registers of 4 bytes, so that the key's parts follow each other.
	const first, destinationPort = 8, 2
	nfproto, at, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if set.DataType.Bytes > 8 {
		nfproto, at, length = unix.NFPROTO_IPV6, 24, 16
	}
	key := match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}}
	next := uint32(first + 1)
	if withAddress {
		key = append(key, load(network, at, length, next))
		next += length / 4
	}
	key = append(key, load(transport, destinationPort, 2, next))
	return rule(family(nfproto), key, match{
		&expr.Lookup{SourceRegister: first, DestRegister: reg, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nfproto), RegAddrMin: reg, RegProtoMin: first + length/4},
	})
}

// hairpin masquerades translated connections that leave by the bridge by which
// they came.
func hairpin() []expr.Any {
	return rule(match{
		meta(expr.MetaKeyIIFNAME), &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg2},
		&expr.Lookup{SourceRegister: reg, SetName: hairpinsSet.Name, SetID: hairpinsSet.ID},
	}, translated(), match{&expr.Masq{}})
}

// translated matches connections whose destination was translated.
func translated() match {
	const destinationNAT = 1 << 5 // IPS_DST_NAT
	return match{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: nativeUint32(destinationNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}
