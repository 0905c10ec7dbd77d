package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// TestIntegrationNet has a round on each rig, and reads what is written.
func TestIntegrationNet(t *testing.T) {
	if testing.Short() {
		t.Skip("boots guests")
	}
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	cases := []struct {
		name       string
		topologies string
		client     bool // in a guest
	}{
		{result.Host, "native,fused", false},
		{result.Pair, "overlay-nested", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "net.jsonl")
			args := []string{
				"-rig", c.name, "-topologies", c.topologies, "-workloads", "tcp_rr/64,udp_stream/64", "-rounds", "1", "-time", "300ms", "-o", file,
			}
			require.Zero(t, run(t.Context(), args, t.Output(), t.Output()))
			s, err := result.ReadFiles(file)
			require.NoError(t, err)
			require.Len(t, s.Environments, 1)
			e := s.Environments[0]
			assert.Equal(t, c.name, e.Rig)
			assert.NotEmpty(t, e.Offloads["pod:eth0"])
			assert.NotEmpty(t, e.CPU)
			require.Equal(t, list(c.topologies), s.Topologies(c.name, ""))
			for _, m := range s.Samples {
				assert.Equal(t, 1, m.Round)
				for _, name := range []string{result.Rate, result.GuestCPU, result.QEMUCPU, result.VCPUs, result.Softirqs, result.Interrupts, result.GuestTime} {
					assert.Positive(t, m.Metrics[name], "%s of %s in %s", name, m.Workload, m.Topology)
				}
				assert.Less(t, m.Metrics[result.VCPUs], m.Metrics[result.QEMUCPU], "the main thread takes some, too")
			}
		})
	}
}
