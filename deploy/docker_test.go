package deploy_test

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestDocker(t *testing.T) {
	spec, err := url.Parse(strings.TrimSpace(read(t, "docker/brfuse.spec")))
	require.NoError(t, err)
	assert.Equal(t, "unix", spec.Scheme)
	assert.Equal(t, "/run/brfuse/brfuse.sock", spec.Path, "the driver's name is the file's")

	var daemon struct {
		LiveRestore bool `json:"live-restore"`
	}
	d := json.NewDecoder(strings.NewReader(read(t, "docker/daemon.json")))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&daemon))
	assert.True(t, daemon.LiveRestore)
}

func TestCompose(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Image       string
			Networks    yaml.Node
			Ports       []string
			Environment map[string]string
		}
		Networks map[string]struct {
			Driver     string
			DriverOpts map[string]string `yaml:"driver_opts"`
			IPAM       struct {
				Driver  string
				Options map[string]string
				Config  []struct{ Subnet netip.Prefix }
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(read(t, "docker/compose.yaml")))
	d.KnownFields(true)
	require.NoError(t, d.Decode(&compose))
	fused := compose.Networks["fused"]
	assert.Equal(t, "brfuse", fused.Driver)
	assert.Equal(t, "brfuse", fused.IPAM.Driver)
	assert.Equal(t, fused.DriverOpts, fused.IPAM.Options, "both name the network")
	var web map[string]struct {
		Address netip.Addr `yaml:"ipv4_address"`
	}
	node := compose.Services["web"].Networks
	require.NoError(t, node.Decode(&web))
	require.Len(t, fused.IPAM.Config, 1, "Docker takes addresses of named subnets only")
	assert.True(t, fused.IPAM.Config[0].Subnet.Contains(web["fused"].Address))
}
