package integration

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationDomain: a guest of the lab runs under libvirt too.
func TestIntegrationDomain(t *testing.T) {
	ctx, s := newSite(t, site.Options{Libvirt: true})
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1"})
	require.NoError(t, err)
	assert.Equal(t, "vm1\n", inGuest(ctx, t, vm, "", "hostname"))
	list, err := s.Libvirt().Virsh(ctx, "list", "--name")
	require.NoError(t, err)
	assert.Contains(t, list, "vm1")
}
