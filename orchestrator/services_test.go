package orchestrator_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestServices(t *testing.T) {
	inCluster(t, 3, func(c cluster) {
		t, hs := c.t, c.hs
		a, b, d := hs[0], hs[1], hs[2]
		a.createOverlay()
		web := a.attach("web")
		_, err := a.orch.SetService(t.Context(), vnic.Service{Network: "none", Protocol: "tcp", Port: 80, Target: 80, Pod: "web"})
		require.ErrorIs(t, err, vnic.ErrUnknownNetwork)
		_, err = a.orch.SetService(t.Context(), vnic.Service{Network: "over", Protocol: "udp", Port: vnic.VXLANPort, Target: 80, Pod: "web"})
		require.ErrorIs(t, err, vnic.ErrPortTaken, "it is the overlays'")
		tunnel := []vnic.PortMapping{{HostPort: vnic.VXLANPort, Port: 80, Protocol: "udp"}}
		_, err = a.orch.Publish(t.Context(), web.ID, tunnel)
		require.ErrorIs(t, err, vnic.ErrPortTaken)
		_, err = a.orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm-a", Pod: "tunnel", Interface: "eth0"}, Network: "over", Ports: tunnel})
		require.ErrorContains(t, err, "attach tunnel/eth0 in vm-a: port 4789/udp carries the frames of overlays (VXLAN); choose another")
		synctest.Wait()
		svc, err := a.orch.SetService(t.Context(), vnic.Service{Network: "over", Protocol: "tcp", Port: 8080, Target: 80, Pod: "web"})
		require.NoError(t, err)
		assert.Equal(t, "8080-tcp", svc.Name)
		assert.Equal(t, 1, svc.Ready)
		_, err = b.orch.SetService(t.Context(), vnic.Service{Name: "at-home", Network: "over", Protocol: "tcp", Port: 8081, Target: 80, Pod: "web", Mode: vnic.ServiceHost})
		require.NoError(t, err)
		_, err = b.orch.SetService(t.Context(), vnic.Service{Name: "other", Network: "over", Protocol: "tcp", Port: 8081, Target: 81, Pod: "web"})
		require.ErrorIs(t, err, vnic.ErrPortTaken)
		_, err = b.orch.SetService(t.Context(), vnic.Service{Name: "at-home", Network: "over", Protocol: "udp", Port: 8081, Target: 81, Pod: "web"})
		require.ErrorIs(t, err, vnic.ErrConflict)

		v4, v6 := web.Leases[0].Addr(), web.Leases[1].Addr()
		here := fmt.Sprintf(" %s:80(here) [%s]:80(here)", v4, v6)
		assert.Equal(t, "8080-tcp"+here+"\nat-home"+here, a.leads())
		assert.Equal(t, strings.ReplaceAll("8080-tcp"+here, "(here)", "")+"\nat-home", b.leads())
		assert.Contains(t, d.world.String(), "network over", "an ingress is everywhere")
		services, err := d.orch.Services(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, services[0].Ready)

		more := b.attach("web")
		assert.Len(t, strings.Fields(strings.Split(d.leads(), "\n")[0]), 5, "two pods of two addresses")
		b.detach(more)
		a.detach(web)
		assert.Equal(t, "8080-tcp\nat-home", d.leads())
		err = d.orch.RemoveNetwork(t.Context(), "over")
		require.ErrorIs(t, err, vnic.ErrInUse)
		require.ErrorContains(t, err, "service 8080-tcp leads to its pods")
		require.NoError(t, d.orch.RemoveService(t.Context(), "8080-tcp"))
		require.ErrorIs(t, d.orch.RemoveService(t.Context(), "8080-tcp"), vnic.ErrUnknownService)
		require.NoError(t, d.orch.RemoveService(t.Context(), "at-home"))
		assert.Empty(t, d.leads())
		assert.Empty(t, d.world.String())
	})
}
