package netpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// Bounds of what is read of a namespace's rules: a node of Kubernetes may have tens
// of thousands.
const (
	maxChains   = 512
	maxRules    = 20000
	maxCounters = 32 // of one base chain
)

// ruleset are the base chains of a namespace.
type ruleset struct {
	chains []Chain
	notes  []string
}

var families = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge",
}

// readRules reads the rules of a namespace. A kernel without nftables has none.
func readRules(ctx context.Context, ns *netnsx.NS) (*ruleset, error) {
	var c *nftables.Conn
	deadline := func(s *netlink.Conn) error {
		t, _ := ctx.Deadline() // zero: none
		return s.SetDeadline(t)
	}
	err := ns.Do(func() (err error) {
		c, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(deadline))
		return err
	})
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return &ruleset{}, nil
	case err != nil:
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	r, err := read(ctx, c)
	return r, errors.Join(err, c.CloseLasting())
}

func read(ctx context.Context, c *nftables.Conn) (*ruleset, error) {
	all, err := c.ListChains()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) { // no such module
		return &ruleset{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	rd := &reader{conn: c, objects: map[tableKey]map[string]*expr.Counter{}, set: &ruleset{}}
	for _, ch := range all {
		if ch.Hooknum == nil || len(rd.set.chains) >= maxChains {
			continue
		}
		if err := rd.base(ctx, ch); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(rd.set.chains, func(a, b Chain) int { return cmp.Compare(a.Priority, b.Priority) })
	if rd.chains >= maxChains || rd.rules >= maxRules {
		rd.set.notes = append(rd.set.notes, fmt.Sprintf("only the first %d chains and %d rules were read", maxChains, maxRules))
	}
	return rd.set, nil
}

type tableKey struct {
	name   string
	family nftables.TableFamily
}

// reader reads rulesets.
type reader struct {
	conn          *nftables.Conn
	objects       map[tableKey]map[string]*expr.Counter // named counters of the tables that were needed
	chains, rules int                                   // read so far
	set           *ruleset
}

// base reads a base chain.
func (rd *reader) base(ctx context.Context, ch *nftables.Chain) error {
	b := Chain{
		Family: families[ch.Table.Family], Table: ch.Table.Name, Name: ch.Name, Device: ch.Device,
		Hook: hookName(ch), Type: string(ch.Type), Policy: "accept",
	}
	if ch.Priority != nil {
		b.Priority = int(*ch.Priority)
	}
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		b.Policy = "drop"
	}
	b.NAT = ch.Type == nftables.ChainTypeNAT
	b.Conntrack = b.NAT
	seen := map[string]bool{}
	for queue := []string{ch.Name}; len(queue) > 0 && rd.chains < maxChains && rd.rules < maxRules; queue = queue[1:] {
		name := queue[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
		called, err := rd.chain(ctx, &b, ch.Table, name)
		if err != nil {
			return err
		}
		queue = append(queue, called...)
	}
	b.Called = len(seen) - 1
	rd.set.chains = append(rd.set.chains, b)
	return nil
}

func hookName(ch *nftables.Chain) string {
	h := *ch.Hooknum
	if ch.Table.Family == nftables.TableFamilyNetdev || ch.Table.Family == nftables.TableFamilyINet && h == *ingressInet {
		if h == *nftables.ChainHookEgress {
			return "egress"
		}
		return "ingress"
	}
	names := []string{"prerouting", "input", "forward", "output", "postrouting"} // NF_INET_*, and the same of bridge
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook %d", h)
}

// ingressInet is the hook ingress of the family inet (NF_INET_INGRESS).
var ingressInet = nftables.ChainHookRef(unix.NF_INET_NUMHOOKS)

// chain adds the rules of one chain to b, and returns which chains they call.
func (rd *reader) chain(ctx context.Context, b *Chain, t *nftables.Table, name string) (called []string, err error) {
	rules, err := rd.conn.GetRules(t, &nftables.Chain{Name: name, Table: t})
	rd.chains++
	if err != nil && ctx.Err() == nil {
		// The library can't read all there is: not the direction in "ct original", for one.
		rd.set.notes = append(rd.set.notes, fmt.Sprintf("rules of chain %s %s %s are not shown: %v", families[t.Family], t.Name, name, err))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read rules of chain %s %s %s: %w", families[t.Family], t.Name, name, err)
	}
	rd.rules += len(rules)
	b.Rules += len(rules)
	for i, r := range rules {
		rule := readRule(r.Exprs)
		b.NAT = b.NAT || rule.nat
		b.Conntrack = b.Conntrack || rule.conntrack || rule.nat
		called = append(called, rule.calls...)
		for _, c := range rule.counters {
			rd.count(b, t, c, RuleCounter{Chain: name, Rule: i + 1, Does: rule.does, Drops: rule.drops})
		}
	}
	return called, nil
}

// count adds a counter to b.
func (rd *reader) count(b *Chain, t *nftables.Table, c counterRef, rc RuleCounter) {
	if len(b.Counters) >= maxCounters {
		b.Uncounted++
		return
	}
	v := c.counter
	if v == nil {
		rc.Name = c.name
		if v = rd.named(t)[c.name]; v == nil {
			return
		}
	}
	rc.Count.Packets, rc.Count.Bytes = v.Packets, v.Bytes
	b.Counters = append(b.Counters, rc)
}

// named returns the named counters of a table.
func (rd *reader) named(t *nftables.Table) map[string]*expr.Counter {
	key := tableKey{t.Name, t.Family}
	if m, ok := rd.objects[key]; ok {
		return m
	}
	m := map[string]*expr.Counter{}
	rd.objects[key] = m
	objs, err := rd.conn.GetNamedObjects(t)
	if err != nil {
		rd.set.notes = append(rd.set.notes, fmt.Sprintf("read named counters of table %s: %v", t.Name, err))
		return m
	}
	for _, o := range objs {
		n, ok := o.(*nftables.NamedObj)
		if !ok || n.Table.Name != t.Name || n.Table.Family != t.Family {
			continue
		}
		if v, ok := n.Obj.(*expr.Counter); ok {
			m[n.Name] = v
		}
	}
	return m
}

// at returns the chains of a hook: those of bridges, or of IPv4 and IPv6.
func (r *ruleset) at(hook string, bridge bool) []Chain {
	var found []Chain
	for _, c := range r.chains {
		ok := c.Family == "ip" || c.Family == "ip6" || c.Family == "inet"
		if bridge {
			ok = c.Family == "bridge"
		}
		if ok && c.Hook == hook {
			found = append(found, c)
		}
	}
	return found
}

// on returns the chains of a device. Of a chain that is for several devices the library
// tells none: it counts for each.
func (r *ruleset) on(device string) []Chain {
	var found []Chain
	for _, c := range r.chains {
		if (c.Hook == "ingress" || c.Hook == "egress") && (c.Device == device || c.Device == "") {
			found = append(found, c)
		}
	}
	return found
}

// conntracks tells whether a rule needs connections to be tracked.
func (r *ruleset) conntracks() bool {
	return slices.ContainsFunc(r.chains, func(c Chain) bool { return c.Conntrack })
}
