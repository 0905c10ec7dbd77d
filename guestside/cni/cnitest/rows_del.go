package cnitest

import (
	"github.com/stretchr/testify/require"
)

func delRows() []row {
	return []row{
		{"DEL three times", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			b.mustAdd(l, rt(p, "eth0"))
			for range 3 {
				require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
				b.empty()
			}
		}},
		{"DEL without netns", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			b.mustAdd(l, rt(p, "eth0"))
			r := rt(p, "eth0")
			r.NetNS = ""
			require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, r))
			b.empty()
		}},
		{"DEL without prevResult and runtimeConfig", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			b.mustAdd(l, wantIP(p, at(b.Network.V4, 104)))
			require.NoError(b.t, b.runtime().DelNetworkList(b.ctx, l, rt(p, "eth0")))
			b.empty()
		}},
		{"DEL after the netns is gone, as containerd repeats it", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			b.mustAdd(l, rt(p, "eth0"))
			require.NoError(b.t, b.DelNetns(b.ctx, p.name))
			require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
			b.empty()
			r := rt(p, "eth0")
			r.NetNS = ""
			require.NoError(b.t, b.runtime().DelNetworkList(b.ctx, l, r))
			_, err := b.AddNetns(b.ctx, p.name) // for the clean-up
			require.NoError(b.t, err)
		}},
		{"DEL of what never was, as after a reboot", func(b *bench) {
			p := pod{id: "unknown", path: "/run/netns/cnitest-never"}
			_, err := b.exec(b.ctx, "DEL", p, "eth0", b.conf(nil))
			require.NoError(b.t, err)
		}},
		{"DEL with the interface gone", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			b.mustAdd(l, rt(p, "eth0"))
			b.ip(p, "link", "set", "eth0", "down")
			b.ip(p, "link", "set", "eth0", "name", "elsewhere")
			require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
			b.empty()
		}},
		{"DEL and ADD again", func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			for range 2 {
				b.complete(b.mustAdd(l, wantIP(p, at(b.Network.V4, 105))), p, b.Network)
				require.NoError(b.t, b.cni.DelNetworkList(b.ctx, l, rt(p, "eth0")))
			}
		}},
	}
}
