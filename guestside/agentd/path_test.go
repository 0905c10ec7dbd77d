package agentd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/vnic"
)

func TestToWalk(t *testing.T) {
	got, err := toWalk(&agentv1.PathRequest{Netns: "web", Interface: "eth0", To: "10.1.0.9"})
	require.NoError(t, err)
	assert.Equal(t, netpath.Options{Namespace: "web", Interface: "eth0", To: netip.MustParseAddr("10.1.0.9")}, got)
	got, err = toWalk(&agentv1.PathRequest{Interface: "eth0"})
	require.NoError(t, err)
	assert.Equal(t, netpath.Options{Interface: "eth0"}, got, "the first namespace")
	for _, tt := range []struct {
		name string
		req  *agentv1.PathRequest
		why  string
	}{
		{"relative", &agentv1.PathRequest{Netns: "a/b", Interface: "eth0"}, "relative path"},
		{"unclean", &agentv1.PathRequest{Netns: "/run/../etc", Interface: "eth0"}, "no clean path"},
		{"long", &agentv1.PathRequest{Netns: strings.Repeat("x", maxNetns+1), Interface: "eth0"}, "is no name"},
		{"interface", &agentv1.PathRequest{Netns: "web", Interface: "a/b"}, "not allowed"},
		{"no interface", &agentv1.PathRequest{Netns: "web"}, "reserved"},
		{"destination", &agentv1.PathRequest{Netns: "web", Interface: "eth0", To: "everywhere"}, `destination "everywhere"`},
		{"zone", &agentv1.PathRequest{Netns: "web", Interface: "eth0", To: "fe80::1%eth0"}, "plain IPv4 or IPv6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := toWalk(tt.req)
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.ErrorContains(t, err, tt.why)
		})
	}
}
