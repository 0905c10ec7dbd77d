package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIntegrationLecture(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out))
	assert.Regexp(t, `^built:  namespace left: bridge br0 10\.200\.0\.1/24 with port veth0
        namespace right: bridge br0 10\.200\.0\.2/24 with port veth0
ping:   10\.200\.0\.1 -> 10\.200\.0\.2 in [0-9.]+(µs|ms)
tcp:    10\.200\.0\.1 -> 10\.200\.0\.2: "hello from the other side"
path:   br0 > veth0 > veth0 > br0: 4 devices each way; with brfuse: 1
$`, out.String())
}
