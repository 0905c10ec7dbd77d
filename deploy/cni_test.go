package deploy_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conflist is a CNI network configuration.
type conflist struct {
	CNIVersion  string            `json:"cniVersion"`
	CNIVersions []string          `json:"cniVersions"`
	Name        string            `json:"name"`
	Plugins     []json.RawMessage `json:"plugins"`
}

// brfusePlugin has the keys of brfuse's part that the configurations use.
type brfusePlugin struct {
	Type         string          `json:"type"`
	Network      string          `json:"network"`
	Capabilities map[string]bool `json:"capabilities"`
}

// strictly decodes JSON and refuses keys that v does not have.
func strictly(t *testing.T, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(v))
}

// TestConflists holds the configurations against the keys that CNI and brfuse's
// plugin have. That CNI's library takes them is tested in guestside/cni/cnitest.
func TestConflists(t *testing.T) {
	names, err := filepath.Glob("cni/*.conflist")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			var list conflist
			strictly(t, read(t, name), &list)
			// Each runtime's GC takes what it doesn't know of its network.
			if strings.Contains(name, "podman") {
				assert.Equal(t, "brfuse", list.Name)
				assert.Equal(t, "0.4.0", list.CNIVersion, "podman reads none beyond 1.0.0")
				assert.Empty(t, list.CNIVersions)
			} else { // libraries of older releases see the first only
				assert.Equal(t, "brfuse-pods", list.Name)
				assert.Equal(t, "1.0.0", list.CNIVersion)
				assert.Equal(t, []string{"1.0.0", "1.1.0"}, list.CNIVersions)
			}
			require.NotEmpty(t, list.Plugins)
			var plugin brfusePlugin
			strictly(t, string(list.Plugins[0]), &plugin)
			assert.Equal(t, "brfuse", plugin.Type, "it makes the interface, so it is first")
			for capability, on := range plugin.Capabilities {
				assert.True(t, on, capability)
				assert.Contains(t, []string{"ips", "mac", "portMappings", "bandwidth", "dns"}, capability)
			}
		})
	}
}
