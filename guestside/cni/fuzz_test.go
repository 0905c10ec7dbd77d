package cni

import (
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
)

// FuzzConfig reads configurations and CNI_ARGS: what is accepted makes a request
// that the agent takes, and results that are accepted can be printed.
func FuzzConfig(f *testing.F) {
	f.Add(args("1.1.0", prevOfADD).StdinData, "")
	f.Add(args("0.4.0", `"ipam":{"type":"x"},"routes":[{"dst":"10.0.0.0/8","gw":"10.1.0.1"}],"timeout":1.5`).StdinData, "IP=10.1.0.9,fd00::9;MAC=02:00:00:00:00:01")
	f.Add(args("1.0.0", `"runtimeConfig":{"ips":["10.1.0.7/24"],"portMappings":[{"hostPort":1,"containerPort":2}],"bandwidth":{"ingressRate":9000}}`).StdinData,
		"IgnoreUnknown=1;K8S_POD_NAME=a")
	f.Fuzz(func(t *testing.T, conf []byte, env string) {
		c, err := parseConfig(conf)
		if err != nil {
			return
		}
		a := &skel.CmdArgs{ContainerID: "x", IfName: "eth0", Netns: ownNetns, Args: env}
		if before, err := prevResult(c); err == nil && before != nil {
			_, _ = expect(before, a) // must not panic, no more
			l := newLab()
			require.NoError(t, l.print(config{CNIVersion: "1.1.0"}, result(before, a, attachment(requestOf(cniapi.Add, c, a).Attach), c.dns())))
		}
		req, err := addRequest(c, a)
		if err != nil {
			return
		}
		for _, r := range req.Attach.Routes {
			require.NoError(t, r.Validate())
		}
		for _, p := range req.Attach.Ports {
			require.NoError(t, p.Validate())
		}
		require.NoError(t, req.Attach.Bandwidth.Validate())
		assert.LessOrEqual(t, len(req.Attach.Addresses), 2)
	})
}
