package rig

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/nettopo"
)

// TestSpecs has what the guests are told to build be possible, and different on both.
func TestSpecs(t *testing.T) {
	r := &Rig{opts: Options{Pair: true}}
	a, b := &node{rig: r, number: 0, uplink: "eth0"}, &node{rig: r, number: 1, uplink: "eth0"}
	r.nodes = []*node{a, b}
	for _, kind := range nettopo.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			of, to := a.spec(kind), b.spec(kind)
			require.NoError(t, of.Check())
			require.NoError(t, to.Check())
			assert.NotEqual(t, of.Address, to.Address)
			assert.Equal(t, of.Local, to.Remote)
			if of.VNI != 0 {
				assert.Equal(t, nettopo.MAC(to.Address.Addr()), of.RemoteMAC)
			}
		})
	}
	assert.Equal(t, "10.240.0.1 10.240.0.2 10.240.0.101 10.240.0.102",
		a.hostAddr().String()+" "+a.guestAddr().String()+" "+b.hostAddr().String()+" "+b.guestAddr().String())
}

// TestIntegrationHostPlace has programs in a hypervisor's namespace.
func TestIntegrationHostPlace(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	ns, err := vmlab.NewNetNS(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	p := &Place{Name: "here", host: ns, dir: t.TempDir(), tool: "false"}
	res, err := p.Run(t.Context(), "ip", "-o", "link")
	require.NoError(t, err)
	assert.Contains(t, res.Stdout, "lo")
	assert.NotContains(t, res.Stdout, "\n2: ", "it is a namespace of its own")
	_, err = p.RunTool(t.Context(), "await", "--to", "nowhere")
	require.ErrorContains(t, err, "here: await --to: exit code 1")

	one, err := p.Start(t.Context(), "sh", "-c", "echo one; exec sleep 60")
	require.NoError(t, err)
	other, err := p.Start(t.Context(), "sh", "-c", "echo other >&2")
	require.NoError(t, err)
	<-other.host.Done()
	assert.Equal(t, "other\n", other.Log())
	require.ErrorContains(t, other.Stop(t.Context()), "it had ended: other")
	require.NoError(t, one.Stop(t.Context()))
	assert.NotContains(t, one.Log(), "other", "each has a log of its own")
}
