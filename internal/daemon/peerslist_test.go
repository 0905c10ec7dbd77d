package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

func TestHypervisors(t *testing.T) {
	cl := newCluster(t, "b", "a")
	a, b := cl.member("a"), cl.member("b")
	started := time.Unix(1_800_000_000, 0).UTC()
	b.change(func(m *member) {
		m.state = vnic.HypervisorDead
		m.self.Underlay, m.self.MTU, m.self.Version, m.self.Started = netip.MustParseAddr("192.0.2.2"), 1500, "v1", started
	})
	got, err := a.client.ListHypervisors(t.Context(), &brfusev1.ListHypervisorsRequest{})
	require.NoError(t, err)
	require.Len(t, got.GetHypervisors(), 2)
	assert.Equal(t, "a", got.GetHypervisors()[0].GetName())
	assert.True(t, got.GetHypervisors()[0].GetSelf())
	assert.Nil(t, got.GetHypervisors()[0].GetStarted())
	m := got.GetHypervisors()[1]
	assert.False(t, m.GetSelf())
	assert.Equal(t, []any{"b", "dead", "192.0.2.2", uint32(1500), b.status().API, "v1", started},
		[]any{m.GetName(), m.GetState(), m.GetUnderlay(), m.GetMtu(), m.GetApi(), m.GetVersion(), m.GetStarted().AsTime()})

	_, err = a.client.RemoveHypervisor(t.Context(), &brfusev1.RemoveHypervisorRequest{Name: "b"})
	require.NoError(t, err)
	assert.Equal(t, []string{"b"}, cl.removed)
	_, err = a.client.RemoveHypervisor(t.Context(), &brfusev1.RemoveHypervisorRequest{Name: "no/name"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
}

func TestHypervisorAlone(t *testing.T) {
	s := serve(t)
	_, err := s.client.ListHypervisors(t.Context(), &brfusev1.ListHypervisorsRequest{})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnsupported)
	require.ErrorContains(t, err, "--store etcd://")
	_, err = s.client.RemoveHypervisor(t.Context(), &brfusev1.RemoveHypervisorRequest{Name: "b"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnsupported)
}
