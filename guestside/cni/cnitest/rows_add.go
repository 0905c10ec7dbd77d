package cnitest

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func addRows() []row {
	rows := []row{
		{"ADD twice fails", addTwice},
		{"ADD with addresses and mac by runtimeConfig", addByRuntimeConfig},
		{"ADD with addresses by args", addByArgs},
		{"ADD as podman asks", addByCNIArgs},
		{"ADD of a taken address fails", addTaken},
		{"ADD of an address outside fails", addOutside},
		{"ADD to an unknown network fails", addUnknownNetwork},
		{"ADD to two networks", addTwoNetworks},
		{"ADD passes on prevResult, and its result to the chain", addChain},
	}
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		rows = append(rows, row{"ADD, CHECK, DEL in version " + v, func(b *bench) { addAll(b, v) }})
	}
	return rows
}

// addAll is the life of an attachment in one version.
func addAll(b *bench, version string) {
	b.version = version
	p := b.pod()
	l := b.list(b.conf(nil))
	res, err := b.cni.AddNetworkList(b.ctx, l, rt(p, "eth0"))
	require.NoError(b.t, err)
	assert.Equal(b.t, version, res.Version())
	r, err := types100.NewResultFromResult(res)
	require.NoError(b.t, err)
	b.complete(r, p, b.Network)
	if version == "0.3.1" {
		_, err := b.exec(b.ctx, "CHECK", p, "eth0", b.conf(nil))
		b.fails(err, 1, "CHECK")
	} else {
		require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")))
	}
	require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
	b.empty()
	_, err = b.IP(b.ctx, p.name, "link", "show", "eth0")
	require.Error(b.t, err, "the interface is gone")
}

// complete checks a result, and that it is what is in the pod.
func (b *bench) complete(r *types100.Result, p pod, n Network) {
	b.t.Helper()
	require.Len(b.t, r.Interfaces, 1)
	i := r.Interfaces[0]
	assert.Equal(b.t, "eth0", i.Name)
	assert.Equal(b.t, p.path, i.Sandbox)
	_, err := net.ParseMAC(i.Mac)
	require.NoError(b.t, err)
	shown := b.ip(p, "addr", "show", "eth0")
	assert.Contains(b.t, shown, i.Mac)
	assert.Contains(b.t, shown, ",UP")
	require.Len(b.t, r.IPs, 2)
	for at, subnet := range []netip.Prefix{n.V4, n.V6} {
		ip := r.IPs[at]
		require.NotNil(b.t, ip.Interface)
		assert.Zero(b.t, *ip.Interface)
		assert.Contains(b.t, shown, ip.Address.String())
		got, _ := netip.AddrFromSlice(ip.Address.IP)
		assert.True(b.t, subnet.Contains(got.Unmap()), "%s in %s", got, subnet)
		gw, _ := netip.AddrFromSlice(ip.Gateway)
		assert.Equal(b.t, gateway(subnet), gw.Unmap())
	}
	assert.Contains(b.t, b.ip(p, "route"), "default via "+gateway(n.V4).String())
	assert.Contains(b.t, b.ip(p, "-6", "route"), "default via "+gateway(n.V6).String())
	assert.Len(b.t, r.Routes, 2)
}

func gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

func addTwice(b *bench) {
	p := b.pod()
	l := b.list(b.conf(nil))
	b.mustAdd(l, rt(p, "eth0"))
	carrier := strings.NewReplacer("NO-CARRIER,", "", "state DOWN", "state UP") // comes by itself, when the host's end is up
	before := carrier.Replace(b.ip(p, "addr"))
	_, err := b.add(l, rt(p, "eth0"))
	b.fails(err, 4, "CNI_IFNAME", "eth0", "DEL")
	assert.Equal(b.t, before, carrier.Replace(b.ip(p, "addr")), "the first one is as it was")
	b.has(p.id + "/eth0")

	// So it is when the interface is not brfuse's.
	b.ip(p, "link", "add", "net1", "type", "veth", "peer", "name", "net1p")
	_, err = b.add(l, rt(p, "net1"))
	b.fails(err, 4, "CNI_IFNAME", "net1")
}

func addresses(r *types100.Result) []string {
	var as []string
	for _, ip := range r.IPs {
		as = append(as, ip.Address.IP.String())
	}
	return as
}

func addByRuntimeConfig(b *bench) {
	p := b.pod()
	r := rt(p, "eth0")
	r.CapabilityArgs = map[string]any{
		"ips": []string{at(b.Network.V4, 100).String() + "/24", at(b.Network.V6, 100).String()}, "mac": "02:00:5e:00:53:64",
		"bandwidth": map[string]int{"ingressRate": 10_000_000, "egressRate": 20_000_000},
		"dns":       map[string][]string{"servers": {at(b.Network.V4, 1).String()}, "searches": {"shop.example"}},
	}
	res := b.mustAdd(b.list(b.conf(nil)), r)
	assert.Equal(b.t, []string{at(b.Network.V4, 100).String(), at(b.Network.V6, 100).String()}, addresses(res))
	assert.Equal(b.t, "02:00:5e:00:53:64", res.Interfaces[0].Mac)
	assert.Equal(b.t, []string{at(b.Network.V4, 1).String()}, res.DNS.Nameservers)
	assert.Equal(b.t, []string{"shop.example"}, res.DNS.Search)
	b.complete(res, p, b.Network)
}

func addByArgs(b *bench) {
	p := b.pod()
	conf := b.conf(map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{at(b.Network.V4, 101).String()}}}})
	res := b.mustAdd(b.list(conf), rt(p, "eth0"))
	assert.Contains(b.t, addresses(res), at(b.Network.V4, 101).String())
}

func addByCNIArgs(b *bench) {
	p := b.pod()
	r := rt(p, "eth0")
	r.Args = [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "db"}, {"MAC", "02:00:5e:00:53:65"}, {"IP", at(b.Network.V4, 102).String()}, {"COLOUR", "red"},
	}
	b.version = "0.4.0"
	res := b.mustAdd(b.list(b.conf(nil)), r)
	assert.Contains(b.t, addresses(res), at(b.Network.V4, 102).String())
	assert.Equal(b.t, "02:00:5e:00:53:65", res.Interfaces[0].Mac)
}

func wantIP(p pod, a netip.Addr) *libcni.RuntimeConf {
	r := rt(p, "eth0")
	r.CapabilityArgs = map[string]any{"ips": []string{a.String()}}
	return r
}

func addTaken(b *bench) {
	l := b.list(b.conf(nil))
	b.mustAdd(l, wantIP(b.pod(), at(b.Network.V4, 103)))
	_, err := b.add(l, wantIP(b.pod(), at(b.Network.V4, 103)))
	b.fails(err, 100, at(b.Network.V4, 103).String(), "ask for another")
}

func addOutside(b *bench) {
	_, err := b.add(b.list(b.conf(nil)), wantIP(b.pod(), netip.MustParseAddr("192.0.2.7")))
	b.fails(err, 7, "192.0.2.7", "subnets")
	b.empty()
}

func addUnknownNetwork(b *bench) {
	b.network = "nowhere"
	l := b.list(b.conf(nil))
	_, err := b.add(l, rt(b.pod(), "eth0"))
	b.fails(err, 7, "nowhere", "brfuse network list")
	b.fails(b.cni.GetStatusNetworkList(b.ctx, l), 50, "nowhere")
}

func addTwoNetworks(b *bench) {
	p := b.pod()
	first := b.mustAdd(b.list(b.conf(nil)), rt(p, "eth0"))
	second := b.list(b.conf(map[string]any{"name": "more", "network": b.Second.Name}))
	res := b.mustAdd(second, rt(p, "net1"))
	assert.Empty(b.t, res.Routes, "the pod's default routes are the first one's")
	assert.Contains(b.t, b.ip(p, "route"), "default via "+gateway(b.Network.V4).String()+" dev eth0")
	assert.Contains(b.t, b.ip(p, "addr", "show", "net1"), res.IPs[0].Address.String())
	assert.NotEqual(b.t, first.Interfaces[0].Mac, res.Interfaces[0].Mac)
	require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, second, rt(p, "net1")))
	b.has(p.id+"/eth0", p.id+"/net1")
	require.NoError(b.t, b.cni.DelNetworkList(b.ctx, second, rt(p, "net1")))
	b.has(p.id + "/eth0")
}

func addChain(b *bench) {
	p := b.pod()
	l := b.list(b.conf(nil), map[string]any{"type": Chain})
	res := b.mustAdd(l, rt(p, "eth0"))
	b.complete(res, p, b.Network)
	require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")))
	require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))

	// As a later plugin of a chain itself.
	out, err := b.exec(b.ctx, "ADD", p, "eth0", b.conf(map[string]any{"prevResult": map[string]any{
		"cniVersion": "1.1.0", "interfaces": []any{map[string]any{"name": "lo", "sandbox": p.path}},
		"ips": []any{map[string]any{"address": "127.0.0.1/8", "interface": 0}},
	}}))
	require.NoError(b.t, err)
	var r types100.Result
	require.NoError(b.t, json.NewDecoder(bytes.NewReader(out)).Decode(&r))
	require.Len(b.t, r.Interfaces, 2)
	assert.Equal(b.t, "lo", r.Interfaces[0].Name)
	assert.Equal(b.t, "eth0", r.Interfaces[1].Name)
	require.Len(b.t, r.IPs, 3)
	assert.Equal(b.t, []int{0, 1, 1}, []int{*r.IPs[0].Interface, *r.IPs[1].Interface, *r.IPs[2].Interface})
}
