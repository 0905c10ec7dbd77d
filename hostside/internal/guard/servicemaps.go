package guard

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// familyMaps are the maps of services of one family. All keys begin with the protocol
// and the host's port.
type familyMaps struct {
	v6       bool
	services *nftables.Set // to the chain that chooses among as many targets as there are
	targets  *nftables.Set // with an index, to a pod's address and port
	sources  *nftables.Set // with the address of a remote target, to what it sees as the source
}

var serviceMaps = []familyMaps{
	mapsOf(false, 11, "4", nftables.TypeIPAddr),
	mapsOf(true, 14, "6", nftables.TypeIP6Addr),
}

func mapsOf(v6 bool, id uint32, suffix string, address nftables.SetDatatype) familyMaps {
	of := func(id uint32, name string, data nftables.SetDatatype, key ...nftables.SetDatatype) *nftables.Set {
		key = append([]nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}, key...)
		return &nftables.Set{
			Table: inetTable, ID: id, Name: name + suffix, IsMap: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(key...), DataType: data,
		}
	}
	return familyMaps{
		v6:       v6,
		services: of(id, "services", nftables.TypeVerdict),
		// A mark is four bytes in the host's order, as numgen makes them.
		targets: of(id+1, "targets", nftables.MustConcatSetType(address, nftables.TypeInetService), nftables.TypeMark),
		sources: of(id+2, "sources", address, address),
	}
}

func (m familyMaps) sets() []*nftables.Set { return []*nftables.Set{m.services, m.targets, m.sources} }

func mapsFor(v6 bool) familyMaps {
	if v6 {
		return serviceMaps[1]
	}
	return serviceMaps[0]
}

// head is what the keys of a service begin with.
func (k serviceKey) head() []byte { return append([]byte{k.protocol, 0, 0, 0}, portKey(k.port)...) }

// addService adds what a service has in the maps.
func (e elements) addService(k serviceKey, s served) {
	m, head := mapsFor(k.v6), k.head()
	verdict := &expr.Verdict{Kind: expr.VerdictGoto, Chain: spread{k.v6, len(s.targets)}.chain().Name}
	e[m.services] = append(e[m.services], nftables.SetElement{Key: head, VerdictData: verdict, Comment: s.name})
	e[m.targets] = slices.Grow(e[m.targets], len(s.targets))
	for i, t := range s.targets {
		e[m.targets] = append(e[m.targets], nftables.SetElement{
			Key: slices.Concat(head, nativeUint32(uint32(i))), Val: append(t.Addr().AsSlice(), portKey(t.Port())...),
		})
	}
	for target, source := range s.sources {
		e[m.sources] = append(e[m.sources], nftables.SetElement{Key: slices.Concat(head, target.AsSlice()), Val: source.AsSlice()})
	}
}

// without returns the elements that o doesn't have, or has otherwise.
func (e elements) without(o elements) elements {
	rest := elements{}
	for set, all := range e {
		others := make(map[string]nftables.SetElement, len(o[set]))
		for _, other := range o[set] {
			others[string(other.Key)] = other
		}
		for _, one := range all {
			other, ok := others[string(one.Key)]
			same := ok && bytes.Equal(one.Val, other.Val) && one.Comment == other.Comment
			if same && one.VerdictData != nil {
				same = *one.VerdictData == *other.VerdictData
			}
			if !same {
				rest[set] = append(rest[set], one)
			}
		}
	}
	return rest
}

// parted divides elements that go into those that others take the place of, or that may
// go at once, and sources of targets that nothing leads to any more in after.
func (e elements) parted(after elements) (now, later elements) {
	now, later = maps.Clone(e), elements{}
	for _, m := range serviceMaps {
		kept := make(map[string]bool, len(after[m.sources]))
		for _, one := range after[m.sources] {
			kept[string(one.Key)] = true
		}
		now[m.sources] = nil
		for _, one := range e[m.sources] {
			if kept[string(one.Key)] {
				now[m.sources] = append(now[m.sources], one)
			} else {
				later[m.sources] = append(later[m.sources], one)
			}
		}
	}
	return now, later
}

// spread is a choice among n targets of one family: the chain that makes it.
type spread struct {
	v6 bool
	n  int
}

// spreadsOf returns those that services take, in one order.
func spreadsOf(services map[serviceKey]served) []spread {
	all := map[spread]bool{}
	for k, s := range services {
		all[spread{k.v6, len(s.targets)}] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b spread) int {
		return cmp.Compare(a.chain().Name, b.chain().Name)
	})
}

// chain is named such as "spread4-3".
func (s spread) chain() *nftables.Chain {
	name := "spread4-"
	if s.v6 {
		name = "spread6-"
	}
	return &nftables.Chain{Name: name + strconv.Itoa(s.n), Table: inetTable}
}

// rules lead to the target at a random index. A packet for which the index is chosen
// while the maps change may find that there are fewer by then, and takes the first.
func (s spread) rules() []chainRules {
	rules := [][]expr.Any{s.leadBelow(s.n)}
	if s.n > 1 {
		rules = append(rules, s.leadBelow(1))
	}
	return []chainRules{{s.chain(), nil}, {s.chain(), rules}}
}

// Registers of 4 bytes, in which the parts of a key follow each other.
const (
	protocolRegister = 8 // NFT_REG32_00, and the first of reg
	portRegister     = 9
	indexRegister    = 10 // or where an address begins
)

// leadBelow translates to the target at a random index below n, if there is one.
func (s spread) leadBelow(n int) []expr.Any {
	targets, nfproto, length := mapsFor(s.v6).targets, uint32(unix.NFPROTO_IPV4), uint32(4)
	if s.v6 {
		nfproto, length = unix.NFPROTO_IPV6, 16
	}
	return rule(servicePort(), match{
		&expr.Numgen{Register: indexRegister, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: protocolRegister, DestRegister: reg, IsDestRegSet: true, SetName: targets.Name, SetID: targets.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto, RegAddrMin: reg, RegProtoMin: protocolRegister + length/4},
	})
}

// servicePort loads what the keys of all maps begin with.
func servicePort() match {
	const destinationPort = 2
	return match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocolRegister},
		load(transport, destinationPort, 2, portRegister),
	}
}

// serve leads what is for a service to the chain that chooses its target.
func (m familyMaps) serve() []expr.Any {
	return rule(family(m.nfproto()), servicePort(), match{
		&expr.Lookup{SourceRegister: protocolRegister, IsDestRegSet: true, SetName: m.services.Name, SetID: m.services.ID},
	})
}

// masquerade gives what a service leads to a remote target a source of the host's.
// Which service's it is, the port says that it was sent to.
func (m familyMaps) masquerade() []expr.Any {
	const original = 0 // IP_CT_DIR_ORIGINAL
	at, length := uint32(ipv4Destination), uint32(4)
	if m.v6 {
		at, length = ipv6Destination, 16
	}
	return rule(family(m.nfproto()), match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocolRegister},
		&expr.Ct{Key: expr.CtKeyPROTODST, Direction: original, Register: portRegister},
		load(network, at, length, indexRegister),
		&expr.Lookup{SourceRegister: protocolRegister, DestRegister: reg, IsDestRegSet: true, SetName: m.sources.Name, SetID: m.sources.ID},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(m.nfproto()), RegAddrMin: reg},
	})
}

func (m familyMaps) nfproto() byte {
	if m.v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// chainSources is a chain of its own, because the library can't read back a rule that
// names a direction, and those of postrouting are read.
var chainSources = &nftables.Chain{Name: "service-sources", Table: inetTable}

// addServices adds maps and chains of services, and the rules behind routing. Those
// before it come with addDispatch, behind those of published ports.
func addServices(c *nftables.Conn, services map[serviceKey]served) error {
	c.AddChain(chainSources)
	for _, m := range serviceMaps {
		for _, set := range m.sets() {
			if err := c.AddSet(set, nil); err != nil {
				return err
			}
		}
		addChains(c, []chainRules{{chainSources, [][]expr.Any{m.masquerade()}}})
	}
	// Before the hairpins, which take the first address of the bridge: an overlay's
	// bridges have that one in common.
	jump := &expr.Verdict{Kind: expr.VerdictJump, Chain: chainSources.Name}
	addChains(c, []chainRules{{postrouting, [][]expr.Any{rule(translated(), match{jump})}}})
	for _, s := range spreadsOf(services) {
		addChains(c, s.rules())
	}
	return nil
}

func addDispatch(c *nftables.Conn) {
	for _, m := range serviceMaps {
		addChains(c, []chainRules{{chainPublished, [][]expr.Any{m.serve()}}})
	}
}
