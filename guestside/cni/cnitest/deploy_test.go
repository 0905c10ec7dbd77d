package cnitest_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDeployedConflists has CNI's library read the configurations that brfuse is
// delivered with.
func TestDeployedConflists(t *testing.T) {
	names, err := filepath.Glob("../../../deploy/cni/*.conflist")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			list, err := libcni.NetworkConfFromFile(name)
			require.NoError(t, err)
			want := "1.1.0"
			if strings.Contains(name, "podman") {
				want = "0.4.0"
			}
			assert.Equal(t, want, list.CNIVersion)
			assert.Equal(t, "brfuse", list.Plugins[0].Network.Type)
		})
	}
}
