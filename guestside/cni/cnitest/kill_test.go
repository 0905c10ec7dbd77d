package cnitest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cnitest"
)

// TestIntegrationPluginKilled kills the plugin when the vNIC is in the pod and
// nobody was told yet: it is taken back without a DEL.
func TestIntegrationPluginKilled(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	e := p.env()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const name = "cnitest-kill"
	netns, err := e.AddNetns(ctx, name)
	require.NoError(t, err)
	defer func() { assert.NoError(t, e.DelNetns(context.WithoutCancel(ctx), name)) }()
	l, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil,
		`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":%q,"network":"blue","socket":%q}]}`, cnitest.Brfuse, p.socket))
	require.NoError(t, err)

	plugin, kill := context.WithCancel(ctx)
	dead := make(chan struct{})
	p.host.attached = func() {
		shown, err := e.IP(ctx, name, "addr", "show", "eth0")
		assert.NoError(t, err) //nolint:testifylint // not on the test's goroutine
		assert.Contains(t, shown, "10.99.1.2/24")
		kill()
		<-dead
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{e.Dir}, t.TempDir(), e.Exec)
	rt := &libcni.RuntimeConf{ContainerID: "killed", NetNS: netns, IfName: "eth0"}
	_, err = cni.AddNetworkList(plugin, l, rt)
	close(dead)
	require.ErrorContains(t, err, "killed")
	require.NoError(t, until(ctx, "the vnic is taken back", func() bool {
		left, err := p.host.list(ctx)
		return err == nil && len(left) == 0
	}))
	_, err = e.IP(ctx, name, "link", "show", "eth0")
	require.Error(t, err, "the interface is gone")

	p.host.attached = nil
	_, err = cni.AddNetworkList(ctx, l, rt)
	require.NoError(t, err, "the runtime may go on")
	require.NoError(t, cni.DelNetworkList(ctx, l, rt))
}
