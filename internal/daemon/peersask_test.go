package daemon

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// TestDetachByPodAlone looks here first, then asks those that live.
func TestDetachByPodAlone(t *testing.T) {
	cl := newCluster(t, "a", "b", "c")
	a, b, c := cl.member("a"), cl.member("b"), cl.member("c")
	ctx := t.Context()
	attach := func(m *member, vm, pod string) {
		_, err := m.client.Attach(ctx, &brfusev1.AttachRequest{Vm: vm, Pod: pod})
		require.NoError(t, err)
	}
	detach := func(pod string) ([]*brfusev1.Attachment, error) {
		got, err := a.client.Detach(ctx, &brfusev1.DetachRequest{Pod: pod})
		return got.GetDetached(), rpcerr.Decode(err)
	}
	attach(a, "a1", "web")
	attach(a, "a1", "only-a")
	attach(b, "b1", "web")
	attach(c, "c1", "web")
	attach(c, "c1", "only-c")

	_, err := detach("web")
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, "pod web is on hypervisors a and b and c, name its vm by --vm")
	got, err := detach("only-a")
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, "a1", got[0].GetVm())
	b.change(func(m *member) { m.state = vnic.HypervisorDead })
	c.change(func(m *member) { m.state = vnic.HypervisorDead })
	got, err = detach("web")
	require.NoError(t, err, "what dead ones have is no matter")
	require.Len(t, got, 1)
	assert.Equal(t, "a1", got[0].GetVm())
	b.change(func(m *member) { m.state = vnic.HypervisorAlive })
	c.change(func(m *member) { m.state = vnic.HypervisorAlive })

	_, err = detach("web")
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, "pod web is on hypervisors b and c, name its vm by --vm")
	assert.Equal(t, 1, b.attached(ctx))

	got, err = detach("only-c")
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, "c1", got[0].GetVm())

	got, err = detach("only-c")
	require.NoError(t, err)
	assert.Empty(t, got, "nobody has it")
	_, err = detach("-")
	require.ErrorIs(t, err, vnic.ErrInvalid)

	attach(c, "c1", "only-c")
	b.stop(t)
	got, err = detach("only-c")
	require.NoError(t, err, "one that has it is enough")
	assert.Len(t, got, 1)
	_, err = detach("only-c")
	require.ErrorIs(t, err, vnic.ErrHypervisorUnavailable, "b may have it")
	require.ErrorContains(t, err, "find pod only-c, name its vm by --vm if you know it: hypervisor b at ")
	b.change(func(m *member) { m.state = vnic.HypervisorDead })
	got, err = detach("only-c")
	require.NoError(t, err, "those that are dead are not asked")
	assert.Empty(t, got)
}

// TestPathByPodAlone finds its hypervisor as Detach does.
func TestPathByPodAlone(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	_, err := c.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "c1", Pod: "only-c"})
	require.NoError(t, err)
	_, err = a.client.Path(t.Context(), &brfusev1.PathRequest{Pod: "only-c"})
	require.NoError(t, err)
	assert.Equal(t, 1, c.log.calls("Path"))
	_, err = a.client.Path(t.Context(), &brfusev1.PathRequest{Pod: "web"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrNotFound)
	assert.Equal(t, 1, c.log.calls("Path"))
}
