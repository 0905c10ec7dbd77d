package netpath

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/assert"
)

func TestReadRule(t *testing.T) {
	tests := []struct {
		name  string
		exprs []expr.Any
		want  rule
	}{
		{"nothing", nil, rule{does: "continue"}},
		{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, rule{does: "accept"}},
		{"state", []expr.Any{&expr.Ct{}, &expr.Verdict{Kind: expr.VerdictDrop}}, rule{does: "drop", drops: true, conntrack: true}},
		{"goto", []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "x"}}, rule{does: "goto x", calls: []string{"x"}}},
		{"dnat", []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT}}, rule{does: "dnat", nat: true}},
		{"snat", []expr.Any{&expr.NAT{Type: expr.NATTypeSourceNAT}}, rule{does: "snat", nat: true}},
		{"iptables", []expr.Any{&expr.Match{Name: "conntrack"}, &expr.Target{Name: "MASQUERADE"}}, rule{does: "MASQUERADE", nat: true, conntrack: true}},
		{"reject", []expr.Any{&expr.Reject{}}, rule{does: "reject", drops: true}},
		{
			"named counter",
			[]expr.Any{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: "bad"}, &expr.Objref{Type: int(nftables.ObjTypeQuota), Name: "q"}},
			rule{does: "continue", counters: []counterRef{{name: "bad"}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, readRule(tt.exprs)) })
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 7.25e9: "7.2 GB", 3e15: "3000.0 TB"} {
		assert.Equal(t, want, size(bytes))
	}
}
