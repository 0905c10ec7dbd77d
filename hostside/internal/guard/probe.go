package guard

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Probe returns an [vnic.ErrUnsupported] that names what this kernel lacks, or
// nil. It needs the capability CAP_NET_ADMIN and changes nothing.
func Probe() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("probe packet filter: %w", err)
	}
	return probe(c)
}

// probe makes and deletes small tables, each in one transaction that leaves
// nothing behind.
func probe(c *nftables.Conn) error {
	for _, f := range []struct {
		what, remedy string
		family       nftables.TableFamily
		add          func(*nftables.Conn, *nftables.Table)
	}{
		{"nftables", "nf_tables", nftables.TableFamilyINet, func(*nftables.Conn, *nftables.Table) {}},
		{"the nftables family bridge", "nf_tables_bridge (CONFIG_NF_TABLES_BRIDGE)", nftables.TableFamilyBridge, probeFilter},
		{"nftables sets of concatenated keys", "Linux 5.6 or later", nftables.TableFamilyBridge, probeSet},
		{"nftables counters", "nf_tables", nftables.TableFamilyBridge, func(c *nftables.Conn, t *nftables.Table) {
			c.AddObj(counterObj(t, "probe", Count{}))
		}},
		{"nftables matching of ipv6 extension headers", "nf_tables (CONFIG_NFT_EXTHDR)", nftables.TableFamilyBridge, probeExthdr},
		{"nftables address translation in the family inet", "nft_chain_nat and nft_masq, Linux 5.2 or later", nftables.TableFamilyINet, probeNAT},
	} {
		t := &nftables.Table{Name: tableName + "-probe", Family: f.family}
		c.AddTable(t)
		f.add(c, t)
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("this kernel lacks %s: %w: %w: it needs %s", f.what, err, vnic.ErrUnsupported, f.remedy)
		}
	}
	return nil
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

func probeExthdr(c *nftables.Conn, t *nftables.Table) {
	chain := &nftables.Chain{Name: "probe", Table: t}
	c.AddChain(chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule(protocol(unix.IPPROTO_ICMPV6), laterFragment(), accept())})
}

func probeNAT(c *nftables.Conn, t *nftables.Table) {
	chain := *postrouting
	chain.Table = t
	c.AddChain(&chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: &chain, Exprs: []expr.Any{&expr.Masq{}}})
}
