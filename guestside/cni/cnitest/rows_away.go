package cnitest

import (
	"context"
	"encoding/json"

	"github.com/stretchr/testify/require"
)

// awayRows are about an agent or a daemon that is not there.
func awayRows() []row {
	return []row{
		{"agent gone", func(b *bench) { away(b, b.StopAgent, b.StartAgent, "brfuse-agent") }},
		{"host gone", func(b *bench) { away(b, b.StopHost, b.StartHost, "brfused") }},
	}
}

func away(b *bench, stop, start func(context.Context) error, remedy string) {
	p, waiting, dead := b.pod(), b.pod(), b.pod()
	l := b.list(b.conf(nil))
	res := b.mustAdd(l, rt(p, "eth0"))
	b.mustAdd(l, rt(dead, "eth0"))

	require.NoError(b.t, stop(b.ctx))
	_, err := b.add(l, rt(waiting, "eth0"))
	b.fails(err, 11, remedy)
	b.fails(b.cni.CheckNetworkList(b.ctx, l, rt(p, "eth0")), 11, remedy)
	b.fails(b.runtime().GCNetworkList(b.ctx, l, nil), 11, remedy)
	b.fails(b.cni.GetStatusNetworkList(b.ctx, l), 50, remedy)
	b.fails(b.runtime().DelNetworkList(b.ctx, l, rt(p, "eth0")), 11, remedy)
	// A dead pod's DEL doesn't wait for them.
	r := rt(dead, "eth0")
	r.NetNS = ""
	require.NoError(b.t, b.runtime().DelNetworkList(b.ctx, l, r))
	require.NoError(b.t, start(b.ctx))

	prev, err := json.Marshal(res)
	require.NoError(b.t, err)
	_, err = b.exec(b.ctx, "CHECK", p, "eth0", b.conf(map[string]any{"prevResult": json.RawMessage(prev)}))
	require.NoError(b.t, err, "the pod kept its network")
	b.mustAdd(l, rt(waiting, "eth0"))
}
