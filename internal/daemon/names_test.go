package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/vnic"
)

func TestNameRecord(t *testing.T) {
	e := vnic.Endpoint{ID: "0123456789", Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2")}, Ready: true}
	r, ok := nameRecord(fabric.Named{Endpoint: e, Services: []vnic.Service{{Name: "shop", Protocol: "tcp", Port: 8080, Target: 80}}})
	assert.True(t, ok)
	assert.Equal(t, names.Record{
		ID: e.ID, Names: []string{"web", "shop"}, Addresses: e.Addresses, Ready: true,
		Ports: []names.Port{{Name: "shop", Number: 80, Protocol: "tcp"}},
	}, r)
	e.Labels = map[string]string{cniapi.LabelPodName: "web-1", cniapi.LabelPodNamespace: "shop"}
	r, _ = nameRecord(fabric.Named{Endpoint: e})
	assert.Equal(t, []string{"shop/web-1"}, r.Names)
	delete(e.Labels, cniapi.LabelPodNamespace)
	r, _ = nameRecord(fabric.Named{Endpoint: e})
	assert.Equal(t, []string{"web-1"}, r.Names)
	_, ok = nameRecord(fabric.Named{Endpoint: vnic.Endpoint{ID: "0123456789"}})
	assert.False(t, ok, "a hypervisor's own")
}

func TestCheckDomain(t *testing.T) {
	for _, good := range []string{"", NoNames, "brfuse.internal", "pods", "A1.b-2.example."} {
		require.NoError(t, checkDomain(good), good)
	}
	for _, bad := range []string{"bad domain", ".", "a..b", "-a", "a-.b", "a_b", "ä.de", strings.Repeat("a.", 80) + "a"} {
		require.ErrorContains(t, checkDomain(bad), "--names", bad)
	}
}

func TestResolver(t *testing.T) {
	server := names.New(names.Config{})
	defer server.Close()
	a := vnic.Attachment{Request: vnic.Request{Network: "blue"}, Leases: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}}
	assert.Empty(t, resolver(server, a), "no names are served")
	n, err := vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")}}.Complete()
	require.NoError(t, err)
	serves, err := nameServer{server}.Serve(t.Context(), n)
	require.NoError(t, err)
	assert.True(t, serves)
	dns := resolver(server, a)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.1.0.1")}, dns.Nameservers, "the pod has no IPv6 address")
	assert.Equal(t, []string{"blue.brfuse.internal"}, dns.Search)
	for _, other := range []vnic.Network{{External: true}, {Unaddressed: true}, {Kind: vnic.KindVLAN}, {Kind: vnic.KindMacvtap}} {
		serves, err := nameServer{server}.Serve(t.Context(), other)
		require.NoError(t, err)
		assert.False(t, serves)
	}
}
