package guard

import (
	"math"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/brfuse/brfuse/vnic"
)

// Limit is how much may come in by a tap. The zero value is no limit. The
// kernel's bucket holds what comes in a second at that rate, and Burst beyond it.
type Limit struct {
	Rate  uint64 // bytes per second
	Burst uint32 // bytes
}

const (
	// largestFrame is what a tap hands over at once: the guest leaves it to others
	// to cut it to the MTU. A bucket that holds less would never let it pass.
	largestFrame = 66 << 10
	// fastest is the rate from which there is no limit: no tap is that fast, and
	// the kernel's arithmetic overflows not far above.
	fastest = 100_000_000_000 / 8
)

// LimitOf returns the limit that comes next to a rate.
func LimitOf(r vnic.Rate) Limit {
	rate := r.Bits / 8
	if rate == 0 || rate > fastest {
		return Limit{}
	}
	bucket := max(r.Burst/8, largestFrame)
	return Limit{Rate: rate, Burst: uint32(min(bucket-min(bucket, rate), math.MaxUint32))}
}

// ratesMap leads from a tap to the chain of its limit.
var ratesMap = &nftables.Set{
	Table: bridgeTable, ID: 10, Name: "rates", IsMap: true, KeyType: nftables.TypeIFName, KeyByteOrder: bridgesSet.KeyByteOrder,
	DataType: nftables.TypeVerdict,
}

// police sees what the filter accepts: forgeries use up nobody's limit.
var police = &nftables.Chain{
	Name: "police", Table: bridgeTable, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
	Priority: new(*prerouting.Priority + 1),
}

const rateChain = "rate-" // and the tap

func rateChainOf(tap string) *nftables.Chain { return bridgeChain(rateChain + tap) }

// addPolicing adds map and chain of the limits, without any.
func addPolicing(c *nftables.Conn) error {
	if err := c.AddSet(ratesMap, nil); err != nil {
		return err
	}
	addChains(c, []chainRules{
		{police, nil},
		{police, [][]expr.Any{rule(match{
			meta(expr.MetaKeyIIFNAME),
			&expr.Lookup{SourceRegister: reg, IsDestRegSet: true, SetName: ratesMap.Name, SetID: ratesMap.ID},
		})}},
	})
	return nil
}

// addLimit makes the chain of a tap's limit, or gives it another.
func addLimit(c *nftables.Conn, tap string, l Limit) {
	chain := rateChainOf(tap)
	c.AddChain(chain)
	c.FlushChain(chain)
	addChains(c, []chainRules{{chain, [][]expr.Any{rule(match{
		&expr.Limit{Type: expr.LimitTypePktBytes, Rate: l.Rate, Over: true, Unit: expr.LimitTimeSecond, Burst: l.Burst},
	}, drop(ReasonRate))}}})
}

// changeLimit turns a tap's limit into another one. Its element in the map is
// gone by then, and comes afterwards.
func changeLimit(c *nftables.Conn, tap string, old, limit Limit) {
	switch {
	case old == limit:
	case limit == Limit{}:
		c.DelChain(rateChainOf(tap))
	default:
		addLimit(c, tap, limit)
	}
}

// loadLimits reads the limits of the ports that are loaded.
func (g *Guard) loadLimits(c *nftables.Conn) error {
	chains, err := c.ListChainsOfTableFamily(bridgeTable.Family)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		tap, ok := strings.CutPrefix(chain.Name, rateChain)
		p, known := g.ports[tap]
		if !ok || !known || chain.Table.Name != tableName {
			continue
		}
		rules, err := c.GetRules(bridgeTable, chain)
		if err != nil {
			return err
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if l, ok := e.(*expr.Limit); ok {
					p.Limit = Limit{Rate: l.Rate, Burst: l.Burst}
				}
			}
		}
		g.ports[tap] = p
	}
	return nil
}
