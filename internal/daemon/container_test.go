package daemon

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// containers has web-1 and its sidecar and proxy, which share the pod web; proxy
// knows its namespace by another path, and restarted has another one.
type containers struct{}

func (containers) Resolve(_ context.Context, vm, runtime, container string) (vnic.Container, error) {
	ids := map[string]string{"web-1": "aaaa01", "sidecar": "aaaa02", "proxy": "aaaa03", "restarted": "aaaa01"}
	paths := map[string]string{"web-1": "web", "sidecar": "web", "proxy": "/proc/7/ns/net", "restarted": "/proc/8/ns/net"}
	if id := ids[container]; vm == "vm1" && runtime == "podman" && id != "" {
		return vnic.Container{ID: id, Name: container, Pod: "aaaa01", Netns: paths[container]}, nil
	}
	return vnic.Container{}, fmt.Errorf("container %s: %w", container, vnic.ErrUnknownContainer)
}

func (containers) Check(m vnic.Move) error {
	if m.Netns == "/proc/7/ns/net" && m.Interface == "net1" && len(m.Addresses) == 1 {
		return nil
	}
	return fmt.Errorf("interface %s: no such: %w", m.Interface, vnic.ErrDiffers)
}

// ready is serve with VM vm1 and network blue added.
func ready(t *testing.T) served {
	t.Helper()
	s := serve(t)
	_, err := s.client.AddVM(t.Context(), &brfusev1.AddVMRequest{Name: "vm1", Qmp: "/run/vm1.qmp", Channel: "/run/vm1.agent"})
	require.NoError(t, err)
	_, err = s.client.CreateNetwork(t.Context(), &brfusev1.CreateNetworkRequest{Network: &brfusev1.Network{Name: "blue", Subnets: []string{"10.1.0.0/24"}}})
	require.NoError(t, err)
	return s
}

func TestContainersOfOnePodShareTheVNIC(t *testing.T) {
	s := ready(t)
	attach := func(container string) *brfusev1.Attachment {
		a, err := s.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "vm1", Container: container, Runtime: "podman", Interface: "net1"})
		require.NoError(t, err)
		return a
	}
	a := attach("web-1")
	assert.Equal(t, "aaaa01", a.GetPod())
	assert.Equal(t, "web", a.GetNetns())
	assert.Equal(t, map[string]string{"container.id": "aaaa01", "container.name": "web-1", "container.runtime": "podman"}, a.GetLabels())
	assert.Equal(t, a.GetId(), attach("sidecar").GetId(), "one pod, one vnic")
	assert.Equal(t, a.GetId(), attach("proxy").GetId(), "by whichever path")
	_, err := s.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "vm1", Container: "restarted", Runtime: "podman", Interface: "net1"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrConflict)
	require.ErrorContains(t, err, "another netns (web, not /proc/8/ns/net)")
	_, err = s.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "vm1", Container: "proxy", Runtime: "podman", Interface: "net1", Mtu: 1400})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrConflict)
	got, err := s.client.Detach(t.Context(), &brfusev1.DetachRequest{Vm: "vm1", Container: "sidecar", Runtime: "podman", Interface: "net1"})
	require.NoError(t, err)
	require.Len(t, got.GetDetached(), 1)
	assert.Equal(t, a.GetId(), got.GetDetached()[0].GetId())
}

// TestDetachOfContainerThatEnded: no engine knows it any more, the labels do.
func TestDetachOfContainerThatEnded(t *testing.T) {
	s := ready(t)
	_, err := s.orch.Attach(t.Context(), vnic.Request{
		Key: vnic.Key{VM: "vm1", Pod: "bbbb01", Interface: "net1"}, Network: "blue", Netns: "web",
		Labels: map[string]string{labelID: "bbbb01", labelName: "gone", labelRuntime: "docker"},
	})
	require.NoError(t, err)
	for _, req := range []*brfusev1.DetachRequest{
		{Vm: "vm1", Container: "other", Runtime: "docker"},
		{Vm: "vm1", Container: "gone", Runtime: "podman"},
		{Vm: "vm1", Container: "gone", Runtime: "docker", Interface: "eth0"},
	} {
		got, err := s.client.Detach(t.Context(), req)
		require.NoError(t, err)
		assert.Empty(t, got.GetDetached(), "%v", req)
	}
	got, err := s.client.Detach(t.Context(), &brfusev1.DetachRequest{Vm: "vm1", Container: "bbbb", Runtime: "docker"})
	require.NoError(t, err)
	assert.Len(t, got.GetDetached(), 1, "by the beginning of its ID")
}

// TestDetachOfContainerLeavesTheEnginesVNIC: CNI's pod has the same ID, and the
// guest chooses its labels.
func TestDetachOfContainerLeavesTheEnginesVNIC(t *testing.T) {
	s := ready(t)
	_, err := s.orch.Attach(t.Context(), vnic.Request{
		Key: vnic.Key{VM: "vm1", Pod: "aaaa01", Interface: "eth0"}, Network: "blue", Netns: "web", Manager: "cni",
		Labels: map[string]string{labelID: "aaaa01", labelRuntime: "podman"},
	})
	require.NoError(t, err)
	got, err := s.client.Detach(t.Context(), &brfusev1.DetachRequest{Vm: "vm1", Container: "web-1", Runtime: "podman"})
	require.NoError(t, err)
	assert.Empty(t, got.GetDetached())
}

func TestContainerRequestsThatAreRefused(t *testing.T) {
	s := ready(t)
	tests := []struct {
		name string
		req  *brfusev1.AttachRequest
		want error
		text string
	}{
		{"no runtime", &brfusev1.AttachRequest{Vm: "vm1", Container: "web-1"}, vnic.ErrInvalid, "none of docker, containerd, podman"},
		{"no container", &brfusev1.AttachRequest{Vm: "vm1", Runtime: "docker"}, vnic.ErrInvalid, "without a container"},
		{"no vm", &brfusev1.AttachRequest{Container: "web-1", Runtime: "podman"}, vnic.ErrInvalid, "vm name is empty"},
		{"and a pod", &brfusev1.AttachRequest{Vm: "vm1", Container: "web-1", Runtime: "podman", Pod: "web"}, vnic.ErrInvalid, "one or the other"},
		{"unknown", &brfusev1.AttachRequest{Vm: "vm1", Container: "x", Runtime: "podman"}, vnic.ErrUnknownContainer, "find container x of podman in vm1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.client.Attach(t.Context(), tt.req)
			err = rpcerr.Decode(err)
			require.ErrorIs(t, err, tt.want)
			assert.ErrorContains(t, err, tt.text)
		})
	}
}

func TestGuestNetworksOfVM(t *testing.T) {
	s := ready(t)
	add := &brfusev1.AddVMRequest{Name: "vm1", Qmp: "/run/vm1.qmp", Channel: "/run/vm1.agent", GuestNetworks: []string{"blue"}}
	got, err := s.client.AddVM(t.Context(), add)
	require.NoError(t, err)
	assert.Equal(t, []string{"blue"}, got.GetGuestNetworks())
	list, err := s.client.ListVMs(t.Context(), &brfusev1.ListVMsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetVms(), 1)
	assert.Equal(t, []string{"blue"}, list.GetVms()[0].GetGuestNetworks())
	for _, bad := range [][]string{{"none", "blue"}, {"blue", "blue"}, {"a b"}} {
		add.GuestNetworks = bad
		_, err = s.client.AddVM(t.Context(), add)
		require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
	}
}
