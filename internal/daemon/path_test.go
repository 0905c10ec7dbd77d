package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// GuestPath tells in its end what was asked for. An agent is away when it is asked for
// net5.
func (silent) GuestPath(_ context.Context, q PathQuery) (*netpath.Path, error) {
	if q.Interface == "net5" {
		return nil, fmt.Errorf("vm %s: %w", q.VM, vnic.ErrAgentUnavailable)
	}
	return &netpath.Path{End: fmt.Sprintf("%s %s %s %t", q.VM, q.Netns, q.Interface, q.To.IsValid())}, nil
}

// HostPath knows the tap of an attachment only.
func (silent) HostPath(_ context.Context, _ PathQuery, a vnic.Attachment, _ *netpath.Path) (*netpath.Path, error) {
	if a.ID == "" {
		return nil, errors.New("which tap is not known")
	}
	return &netpath.Path{End: a.VNIC().TapName()}, nil
}

func TestPath(t *testing.T) {
	s := ready(t)
	attach := func(pod, ifname string) string {
		a, err := s.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "vm1", Pod: pod, Netns: "web", Interface: ifname})
		require.NoError(t, err)
		return a.GetId()
	}
	web, net1, db := attach("web", "eth0"), attach("web", "net1"), attach("db", "net5")
	const hostless = "the host's side is not known: which tap is not known"
	tests := []struct {
		name        string
		req         *brfusev1.PathRequest
		guest, host string
		attachment  string
		notes       []string
	}{
		{"attached", &brfusev1.PathRequest{Pod: "web"}, "vm1 web eth0 false", "brf" + web, web, []string{"the pod has other interfaces, see --ifname: net1"}},
		{"by interface", &brfusev1.PathRequest{Pod: "web", Interface: "net1", To: "10.1.0.7"}, "vm1 web net1 true", "brf" + net1, net1, []string{"the pod has other interfaces, see --ifname: eth0"}},
		{"without eth0, and its agent is away", &brfusev1.PathRequest{Pod: "db"}, "", "brf" + db, db, []string{"the guest's side is not known: vm vm1: guest agent unavailable"}},
		{"another interface of an attached pod", &brfusev1.PathRequest{Pod: "web", Interface: "docker0"}, "vm1 web docker0 false", "", "", []string{hostless}},
		{"nested", &brfusev1.PathRequest{Pod: "4711", Vm: "vm1"}, "vm1 4711 eth0 false", "", "", []string{hostless}},
		{"container", &brfusev1.PathRequest{Pod: "proxy", Runtime: "podman", Vm: "vm1"}, "vm1 /proc/7/ns/net eth0 false", "", "", []string{hostless}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.client.Path(t.Context(), tt.req)
			require.NoError(t, err)
			var r netpath.Report
			require.NoError(t, json.Unmarshal([]byte(got.GetReport()), &r))
			assert.Equal(t, tt.attachment, r.Attachment)
			assert.Equal(t, tt.attachment != "", r.Fused)
			assert.Equal(t, "vm1", r.VM)
			assert.Equal(t, tt.notes, r.Notes)
			assert.Equal(t, tt.guest, endOf(r.Guest))
			assert.Equal(t, tt.host, endOf(r.Host))
		})
	}
}

func endOf(p *netpath.Path) string {
	if p == nil {
		return ""
	}
	return p.End
}

func TestPathRefuses(t *testing.T) {
	s := ready(t)
	for _, tt := range []struct {
		name string
		req  *brfusev1.PathRequest
		err  error
		why  string
	}{
		{"no pod", &brfusev1.PathRequest{}, vnic.ErrInvalid, "no pod is named"},
		{"not attached", &brfusev1.PathRequest{Pod: "web"}, vnic.ErrNotFound, "name the vm that it is in by --vm"},
		{"destination", &brfusev1.PathRequest{Pod: "web", Vm: "vm1", To: "x"}, vnic.ErrInvalid, `destination "x"`},
		{"runtime", &brfusev1.PathRequest{Pod: "web", Vm: "vm1", Runtime: "rkt"}, vnic.ErrInvalid, "docker, containerd, podman"},
		{"container", &brfusev1.PathRequest{Pod: "gone", Vm: "vm1", Runtime: "podman"}, vnic.ErrUnknownContainer, "find container gone"},
		{"agent away", &brfusev1.PathRequest{Pod: "db", Vm: "vm1", Interface: "net5"}, vnic.ErrAgentUnavailable, "vm1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.client.Path(t.Context(), tt.req)
			err = rpcerr.Decode(err)
			require.ErrorIs(t, err, tt.err)
			assert.ErrorContains(t, err, tt.why)
		})
	}
}

func TestPathOf(t *testing.T) {
	found := []vnic.Attachment{
		{ID: "0000000001", Phase: vnic.PhaseReady, Request: vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Netns: "web"}},
		{ID: "0000000002", Phase: vnic.PhaseMoved, Device: "0000000003", Request: vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "net1"}, Handover: true}},
	}
	q, a, notes := pathOf(PathQuery{Netns: "web", Interface: "net1"}, found)
	assert.Equal(t, PathQuery{VM: "vm1", Interface: "net1"}, q, "an engine moved it: it is found by its MAC")
	assert.Equal(t, vnic.ID("0000000003"), a.VNIC())
	assert.Equal(t, []string{"the pod has other interfaces, see --ifname: eth0", "the attachment is moved"}, notes)

	require.NoError(t, oneVM("web", found))
	found[1].Request.VM = "vm2"
	err := oneVM("web", found)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	assert.ErrorContains(t, err, "pod web is in vms vm1 and vm2, name one by --vm")
}
