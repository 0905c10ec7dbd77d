package guestlink

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationPath asks an agent for a path of its own namespace, and what it
// can't tell.
func TestIntegrationPath(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	noLeaks(t)
	socket := socketIn(t)
	startGuest(t, socket, newFakeAgent(), nil)
	l, events := newLinks(t, socket, Config{})
	await(t, events, "the agent")

	p, err := l.Path(t.Context(), "vm1", Walk{Netns: "/proc/self/ns/net", Interface: "eth7"})
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorContains(t, err, "vm vm1: find path: invalid argument: no interface eth7 in namespace /proc/self/ns/net")
	assert.Nil(t, p)
	_, err = l.Path(t.Context(), "vm1", Walk{Netns: "no-such-pod", Interface: "eth0"})
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
	_, err = l.Path(t.Context(), "vm9", Walk{Netns: "web", Interface: "eth0"})
	require.ErrorIs(t, err, vnic.ErrUnknownVM)
}
