package netpath

import (
	"cmp"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// rule is what a rule of nftables does, as far as it matters here.
type rule struct {
	does           string
	drops          bool
	nat, conntrack bool
	calls          []string // chains
	counters       []counterRef
}

// counterRef is a counter in a rule, or the name of one.
type counterRef struct {
	counter *expr.Counter
	name    string
}

func readRule(exprs []expr.Any) rule {
	var r rule
	for _, e := range exprs {
		r.add(e)
	}
	r.does = cmp.Or(r.does, "continue")
	return r
}

func (r *rule) add(e expr.Any) {
	switch e := e.(type) {
	case *expr.Counter:
		r.counters = append(r.counters, counterRef{counter: e})
	case *expr.Objref:
		if nftables.ObjType(e.Type) == nftables.ObjTypeCounter {
			r.counters = append(r.counters, counterRef{name: e.Name})
		}
	case *expr.Verdict:
		r.verdict(e)
	case *expr.Ct:
		r.conntrack = true
	case *expr.Masq:
		r.does, r.nat = "masquerade", true
	case *expr.Redir:
		r.does, r.nat = "redirect", true
	case *expr.NAT:
		r.does, r.nat = "dnat", true
		if e.Type == expr.NATTypeSourceNAT {
			r.does = "snat"
		}
	case *expr.Reject:
		r.does, r.drops = "reject", true
	case *expr.FlowOffload:
		r.does, r.conntrack = "flow offload", true
	case *expr.Match:
		r.conntrack = r.conntrack || e.Name == "conntrack" || e.Name == "state"
	case *expr.Target:
		r.target(e.Name)
	}
}

// target reads a target of iptables, in a rule that iptables-nft made.
func (r *rule) target(name string) {
	r.does = name
	switch name {
	case "MASQUERADE", "DNAT", "SNAT", "REDIRECT", "NETMAP":
		r.nat = true
	case "CT", "CONNMARK":
		r.conntrack = true
	case "REJECT", "DROP":
		r.drops = true
	}
}

func (r *rule) verdict(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictAccept:
		r.does = "accept"
	case expr.VerdictDrop:
		r.does, r.drops = "drop", true
	case expr.VerdictReturn:
		r.does = "return"
	case expr.VerdictQueue:
		r.does = "queue"
	case expr.VerdictJump, expr.VerdictGoto:
		r.does = "jump " + v.Chain
		if v.Kind == expr.VerdictGoto {
			r.does = "goto " + v.Chain
		}
		r.calls = append(r.calls, v.Chain)
	}
}
