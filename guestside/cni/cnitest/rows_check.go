package cnitest

import (
	"github.com/containernetworking/cni/pkg/types/100"
	"github.com/stretchr/testify/require"
)

// byHand is what someone does to a pod's network.
type byHand struct {
	name  string
	do    func(b *bench, p pod, r *types100.Result)
	fails bool
	text  string // of the error
}

func checkRows() []row {
	var rows []row
	for _, h := range changes() {
		rows = append(rows, row{"CHECK after " + h.name, func(b *bench) {
			p := b.pod()
			l := b.list(b.conf(nil))
			r := b.mustAdd(l, rt(p, "eth0"))
			require.NoError(b.t, b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")))
			h.do(b, p, r)
			err := b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0"))
			if !h.fails {
				require.NoError(b.t, err)
				return
			}
			b.fails(err, 104, h.text)
		}})
	}
	return append(rows, row{"CHECK of what was taken away", func(b *bench) {
		p := b.pod()
		l := b.list(b.conf(nil))
		b.mustAdd(l, rt(p, "eth0"))
		_, err := b.exec(b.ctx, "DEL", p, "eth0", b.conf(nil)) // libcni keeps the result
		require.NoError(b.t, err)
		b.fails(b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")), 104)
	}}, row{"CHECK without prevResult", func(b *bench) {
		p := b.pod()
		l := b.list(b.conf(nil))
		b.mustAdd(l, rt(p, "eth0"))
		b.fails(b.runtime().CheckNetworkList(b.ctx, l, rt(p, "eth0")), 7, "prevResult")
	}})
}

func changes() []byHand {
	run := func(args ...string) func(*bench, pod, *types100.Result) {
		return func(b *bench, p pod, _ *types100.Result) { b.ip(p, args...) }
	}
	return []byHand{
		{"nothing", func(*bench, pod, *types100.Result) {}, false, ""},
		{"an address is gone", func(b *bench, p pod, r *types100.Result) {
			b.ip(p, "addr", "del", r.IPs[0].Address.String(), "dev", "eth0")
		}, true, "address"},
		{"an IPv6 address is gone", func(b *bench, p pod, r *types100.Result) {
			b.ip(p, "addr", "del", r.IPs[1].Address.String(), "dev", "eth0")
		}, true, "address"},
		{"the default route is gone", run("route", "del", "default"), true, "route"},
		{"the IPv6 default route is gone", run("-6", "route", "del", "default"), true, "route"},
		{"the link is down", run("link", "set", "eth0", "down"), true, "down"},
		{"the link has another name", func(b *bench, p pod, _ *types100.Result) {
			b.ip(p, "link", "set", "eth0", "down")
			b.ip(p, "link", "set", "eth0", "name", "other")
			b.ip(p, "link", "set", "other", "up")
		}, true, "eth0"},
		{"the link has another mac", run("link", "set", "eth0", "address", "02:00:5e:00:53:ff"), true, "mac"},
		{"more addresses and routes came", func(b *bench, p pod, _ *types100.Result) {
			b.ip(p, "addr", "add", "192.0.2.1/24", "dev", "eth0")
			b.ip(p, "route", "add", "198.51.100.0/24", "via", "192.0.2.9")
		}, false, ""},
		{"the mtu was changed, as by the plugin tuning", run("link", "set", "eth0", "mtu", "1400"), false, ""},
	}
}
