package cnitest

import (
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/require"
)

// gcRows use a libcni that knows nothing of the attachments: it would DEL them
// one by one before it calls the plugin.
func gcRows() []row {
	return []row{
		{"GC with an empty list", func(b *bench) {
			b.mustAdd(b.list(b.conf(nil)), rt(b.pod(), "eth0"))
			b.mustAdd(b.list(b.conf(nil)), rt(b.pod(), "eth0"))
			require.NoError(b.t, b.runtime().GCNetworkList(b.ctx, b.list(b.conf(nil)), &libcni.GCArgs{}))
			b.empty()
		}},
		{"GC with no list", func(b *bench) {
			b.mustAdd(b.list(b.conf(nil)), rt(b.pod(), "eth0"))
			require.NoError(b.t, b.runtime().GCNetworkList(b.ctx, b.list(b.conf(nil)), nil))
			b.empty()
		}},
		{"GC with a partial list", func(b *bench) {
			l := b.list(b.conf(nil))
			dead, alive := b.pod(), b.pod()
			b.mustAdd(l, rt(dead, "eth0"))
			b.mustAdd(l, rt(alive, "eth0"))
			b.mustAdd(b.list(b.conf(map[string]any{"network": b.Second.Name})), rt(alive, "net1"))
			require.NoError(b.t, b.DelNetns(b.ctx, dead.name))
			valid := []types.GCAttachment{{ContainerID: alive.id, IfName: "eth0"}, {ContainerID: "unknown", IfName: "eth0"}}
			require.NoError(b.t, b.runtime().GCNetworkList(b.ctx, l, &libcni.GCArgs{ValidAttachments: valid}))
			b.has(alive.id + "/eth0")
			require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(alive, "eth0")))
			_, err := b.AddNetns(b.ctx, dead.name) // for the clean-up
			require.NoError(b.t, err)
		}},
		{"GC leaves other networks alone", func(b *bench) {
			p := b.pod()
			b.mustAdd(b.list(b.conf(map[string]any{"name": "others"})), rt(p, "eth0"))
			require.NoError(b.t, b.runtime().GCNetworkList(b.ctx, b.list(b.conf(nil)), &libcni.GCArgs{}))
			b.has(p.id + "/eth0")
		}},
		{"STATUS", func(b *bench) { require.NoError(b.t, b.cni.GetStatusNetworkList(b.ctx, b.list(b.conf(nil)))) }},
		{"STATUS and ADD when exhausted", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			restore, err := b.Exhaust(b.ctx)
			require.NoError(b.t, err)
			b.fails(b.cni.GetStatusNetworkList(b.ctx, l), 50, "free")
			_, err = b.add(l, rt(p, "eth0"))
			b.fails(err, 11, "free")
			require.NoError(b.t, restore(b.ctx))
			require.NoError(b.t, b.cni.GetStatusNetworkList(b.ctx, l))
			b.mustAdd(l, rt(p, "eth0"))
		}},
	}
}
