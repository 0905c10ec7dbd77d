package cnitest

import (
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ipamRows are about a delegated IPAM plugin.
func ipamRows() []row {
	return []row{
		{"IPAM: ADD, CHECK, DEL", ipamAll},
		{"IPAM: an address outside is given back", func(b *bench) {
			p := b.pod()
			_, err := b.add(b.list(b.ipam("192.0.2.7/24", "192.0.2.1")), rt(p, "eth0"))
			b.fails(err, 7, "192.0.2.7")
			assert.Empty(b.t, b.leased())
		}},
		{"IPAM: a failed ADD is given back", func(b *bench) {
			p := b.pod()
			conf := b.ipam(at(b.Network.V4, 110).String()+"/24", gateway(b.Network.V4).String())
			conf["network"] = "nowhere"
			_, err := b.add(b.list(conf), rt(p, "eth0"))
			b.fails(err, 7, "nowhere")
			assert.Empty(b.t, b.leased())
		}},
		{"IPAM: DEL when netns and agent are gone", func(b *bench) {
			p := b.pod()
			l := b.list(b.ipam(at(b.Network.V4, 111).String()+"/24", gateway(b.Network.V4).String()))
			b.mustAdd(l, rt(p, "eth0"))
			require.NoError(b.t, b.StopAgent(b.ctx))
			r := rt(p, "eth0")
			r.NetNS = ""
			err := b.runtime().DelNetworkList(b.ctx, l, r)
			require.NoError(b.t, b.StartAgent(b.ctx))
			require.NoError(b.t, err)
			assert.Empty(b.t, b.leased())
		}},
		{"IPAM: GC and STATUS are forwarded", func(b *bench) {
			dead, alive := b.pod(), b.pod()
			l := b.list(b.ipam(at(b.Network.V4, 112).String()+"/24", gateway(b.Network.V4).String()))
			b.mustAdd(l, rt(dead, "eth0"))
			b.mustAdd(b.list(b.ipam(at(b.Network.V4, 113).String()+"/24", gateway(b.Network.V4).String())), rt(alive, "eth0"))
			valid := []types.GCAttachment{{ContainerID: alive.id, IfName: "eth0"}}
			require.NoError(b.t, b.runtime().GCNetworkList(b.ctx, l, &libcni.GCArgs{ValidAttachments: valid}))
			assert.Equal(b.t, []string{alive.id + "-eth0"}, b.leased())
			b.has(alive.id + "/eth0")
			require.NoError(b.t, b.cni.GetStatusNetworkList(b.ctx, l))
			b.shell("touch " + b.State + "/down")
			defer b.shell("rm -f " + b.State + "/*")
			b.fails(b.cni.GetStatusNetworkList(b.ctx, l), 50, "the test says no")
		}},
		{"IPAM: a plugin that is missing", func(b *bench) {
			_, err := b.add(b.list(b.conf(map[string]any{"ipam": map[string]any{"type": "missing"}})), rt(b.pod(), "eth0"))
			b.fails(err, 7, "missing", "CNI_PATH")
		}},
	}
}

func ipamAll(b *bench) {
	p := b.pod()
	address, gw := at(b.Network.V4, 109), at(b.Network.V4, 200)
	l := b.list(b.ipam(address.String()+"/24", gw.String()))
	res := b.mustAdd(l, rt(p, "eth0"))
	assert.Equal(b.t, address.String(), addresses(res)[0])
	assert.Equal(b.t, []string{p.id + "-eth0"}, b.leased())
	routes := b.ip(p, "route")
	assert.Contains(b.t, routes, "default via "+gw.String())
	assert.NotContains(b.t, routes, "via "+gateway(b.Network.V4).String())
	require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")))
	b.shell("rm " + b.State + "/" + p.id + "-eth0")
	require.Error(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")), "the IPAM plugin's CHECK counts")
	require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
	b.empty()
}

// ipam returns a configuration with the test's IPAM plugin.
func (b *bench) ipam(address, gateway string) map[string]any {
	return b.conf(map[string]any{"ipam": map[string]any{"type": Helper, "dir": b.State, "address": address, "gateway": gateway}})
}

// leased returns the leases of the test's IPAM plugin.
func (b *bench) leased() []string { return strings.Fields(b.shell("ls " + b.State)) }

func (b *bench) shell(script string) string {
	b.t.Helper()
	out, err := b.Shell(b.ctx, script)
	require.NoError(b.t, err)
	return out
}
