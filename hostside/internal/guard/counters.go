package guard

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Reason is why packets from or to pods are dropped. It is a counter's name too.
type Reason string

// Reasons.
const (
	ReasonMAC       Reason = "mac"       // source MAC not leased, or a tap without leases
	ReasonARP       Reason = "arp"       // ARP for a sender that is not leased
	ReasonIPv4      Reason = "ipv4"      // source not leased, or malformed
	ReasonIPv6      Reason = "ipv6"      // source not leased, or malformed
	ReasonND        Reason = "nd"        // forged or malformed neighbour discovery
	ReasonDHCP      Reason = "dhcp"      // answer of a DHCP server
	ReasonRouter    Reason = "router"    // router advertisement, IGMP or MLD query
	ReasonRedirect  Reason = "redirect"  // ICMP redirect
	ReasonEtherType Reason = "ethertype" // neither ARP, IPv4 nor IPv6, or with a VLAN tag
	ReasonRate      Reason = "rate"      // more than the tap's limit
	ReasonStray     Reason = "stray"     // went to the host beside the bridge

	ReasonDestination Reason = "destination" // to a pod, for an address or by a MAC that is not its own
)

var bridgeReasons = []Reason{
	ReasonMAC, ReasonARP, ReasonIPv4, ReasonIPv6, ReasonND, ReasonDHCP, ReasonRouter, ReasonRedirect, ReasonEtherType,
	ReasonRate, ReasonDestination,
}

// Count is how much was dropped.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters returns what was dropped under each reason since the tables were
// made. Without tables it is empty.
func (g *Guard) Counters(context.Context) (map[Reason]Count, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var counts map[Reason]Count
	err := g.transactLocked(func(c *nftables.Conn) (err error) {
		counts, err = readCounters(c, bridgeTable, inetTable)
		return err
	})
	if err == nil {
		err = g.countDirectLocked(counts)
	}
	return counts, err
}

func readCounters(c *nftables.Conn, tables ...*nftables.Table) (map[Reason]Count, error) {
	counts := make(map[Reason]Count)
	for _, t := range tables {
		ok, err := exists(c, t)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		objs, err := c.GetNamedObjects(t)
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		for _, o := range objs {
			named, ok := o.(*nftables.NamedObj)
			if !ok || named.Table.Name != t.Name || named.Table.Family != t.Family {
				continue
			}
			if v, ok := named.Obj.(*expr.Counter); ok {
				counts[Reason(named.Name)] = Count{Packets: v.Packets, Bytes: v.Bytes}
			}
		}
	}
	return counts, nil
}

func counterObj(t *nftables.Table, r Reason, start Count) *nftables.NamedObj {
	return &nftables.NamedObj{
		Table: t, Name: string(r), Type: nftables.ObjTypeCounter,
		Obj: &expr.Counter{Packets: start.Packets, Bytes: start.Bytes},
	}
}
