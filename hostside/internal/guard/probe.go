package guard

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// feature is something of the kernel's: a small table that takes it.
type feature struct {
	what, remedy string
	family       nftables.TableFamily
	add          func(*nftables.Conn, *nftables.Table)
}

const (
	inBridge = nftables.TableFamilyBridge
	inInet   = nftables.TableFamilyINet
)

// What every filter takes, and what only published ports, limits and services do. What a
// feature takes beside its own was looked for by those before it, so that the first
// that fails names what is missing.
var (
	base = []feature{
		{"nftables", "nf_tables", inInet, func(*nftables.Conn, *nftables.Table) {}},
		{"the nftables family bridge", "nf_tables_bridge (CONFIG_NF_TABLES_BRIDGE)", inBridge, probeFilter},
		{"nftables sets of concatenated keys", "Linux 5.6 or later", inBridge, probeSet},
		{"nftables counters", "nft_counter (CONFIG_NFT_COUNTER)", inBridge, func(c *nftables.Conn, t *nftables.Table) {
			c.AddObj(counterObj(t, probeReason, Count{}))
		}},
		{"nftables rules that use named counters", "nft_objref (CONFIG_NFT_OBJREF)", inBridge, probeCounting},
		// A kernel that has it as a module takes no other for it.
		{"nftables matching of interfaces in the family bridge", "nft_meta_bridge (CONFIG_NFT_BRIDGE_META)", inBridge, probeRule(func() match {
			return rule(fromTap(), accept())
		})},
		{"nftables matching of ipv6 extension headers", "nf_tables (CONFIG_NFT_EXTHDR)", inBridge, probeRule(func() match {
			return rule(protocol(unix.IPPROTO_ICMPV6), laterFragment(), accept())
		})},
		{"nftables address translation in the family inet", "nft_chain_nat and nft_masq, Linux 5.2 or later", inInet, probeNAT},
	}
	forPublishing = []feature{
		{"nftables matching of the host's own addresses", "nft_fib_inet (CONFIG_NFT_FIB_INET)", inInet, probeRule(addressedToHost)},
		{"nftables matching of tracked connections", "nft_ct (CONFIG_NFT_CT)", inInet, probeRule(translated)},
		{"nftables translation of destinations", "nft_nat (CONFIG_NFT_NAT), Linux 5.6 or later", inInet, probeTranslation},
	}
	forServices = []feature{
		{"nftables random numbers", "nft_numgen (CONFIG_NFT_NUMGEN)", inInet, probeRule(func() match {
			return match{&expr.Numgen{Register: reg, Modulus: 2, Type: unix.NFT_NG_RANDOM}}
		})},
	}
	forLimits = []feature{
		{"nftables limits", "nft_limit (CONFIG_NFT_LIMIT)", inBridge, probeRule(func() match {
			return match{&expr.Limit{Type: expr.LimitTypePktBytes, Rate: 1000, Over: true, Unit: expr.LimitTimeSecond, Burst: largestFrame}}
		})},
	}
)

// Probe returns an [vnic.ErrUnsupported] that names what this kernel lacks, or
// nil. It needs the capability CAP_NET_ADMIN and changes nothing.
func Probe() error { return probeAll(base) }

// ProbePublishing is [Probe] for what published ports take beside.
func ProbePublishing() error { return probeAll(forPublishing) }

// ProbeServices is [ProbePublishing] for what services take beside.
func ProbeServices() error { return probeAll(slices.Concat(forPublishing, forServices)) }

// ProbeLimits is [Probe] for what limits take beside.
func ProbeLimits() error { return probeAll(forLimits) }

func probeAll(features []feature) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("probe packet filter: %w", err)
	}
	return probe(c, features)
}

// probe makes and deletes small tables, each in one transaction that leaves
// nothing behind.
func probe(c *nftables.Conn, features []feature) error {
	for _, f := range features {
		t := &nftables.Table{Name: tableName + "-probe", Family: f.family}
		c.AddTable(t)
		f.add(c, t)
		c.DelTable(t)
		err := c.Flush()
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("probe packet filter: %w: it takes the capability CAP_NET_ADMIN", err)
		}
		if err != nil {
			return fmt.Errorf("this kernel lacks %s: %w: %w: it needs %s", f.what, err, vnic.ErrUnsupported, f.remedy)
		}
	}
	return nil
}

// probeRule is a chain with a rule of m.
func probeRule(m func() match) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, t *nftables.Table) {
		chain := &nftables.Chain{Name: "probe", Table: t}
		c.AddChain(chain)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: m()})
	}
}

// probeReason names the counter of a probe.
const probeReason = "probe"

func probeCounting(c *nftables.Conn, t *nftables.Table) {
	chain := &nftables.Chain{Name: "probe", Table: t}
	c.AddObj(counterObj(t, probeReason, Count{}))
	c.AddChain(chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: drop(probeReason)})
}

func probeTranslation(c *nftables.Conn, t *nftables.Table) {
	set, chain := *any4, *dstnat
	set.Table, set.ID, chain.Table = t, 91, t
	_ = c.AddSet(&set, nil) // without elements it can't fail
	c.AddChain(&chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: &chain, Exprs: translate(&set, false)})
}

func probeFilter(c *nftables.Conn, t *nftables.Table) {
	chain := *prerouting
	chain.Table = t
	c.AddChain(&chain)
}

func probeSet(c *nftables.Conn, t *nftables.Table) {
	set := *macSet
	set.Table, set.ID = t, 90
	_ = c.AddSet(&set, nil) // without elements it can't fail
}

func probeNAT(c *nftables.Conn, t *nftables.Table) {
	chain := *postrouting
	chain.Table = t
	c.AddChain(&chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: &chain, Exprs: []expr.Any{&expr.Masq{}}})
}
