package hostside

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/hostside/internal/guard"
	"github.com/brfuse/brfuse/vnic"
)

// TestServiceAfterRestart: a service keeps the addresses that an earlier process gave it
// until this one knows its own, so that connections through it go on.
func TestServiceAfterRestart(t *testing.T) {
	four, six := netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("fd00:9::5")
	inForce := guard.Service{Name: "web", Source4: four, Source6: six}
	b := vnic.Backend{Service: vnic.Service{Name: "web", Network: "blue"}}
	h := &Host{stands: map[string][]netip.Prefix{}}
	s := h.service(b, inForce)
	assert.Equal(t, four, s.Source4)
	assert.Equal(t, six, s.Source6)
	h.SetHostAddresses("blue", []netip.Prefix{netip.MustParsePrefix("10.9.0.7/24")})
	s = h.service(b, inForce)
	assert.Equal(t, netip.MustParseAddr("10.9.0.7"), s.Source4)
	assert.False(t, s.Source6.IsValid(), "there is none of that family now")
	h.SetHostAddresses("blue", nil)
	assert.False(t, h.service(b, inForce).Source4.IsValid(), "the network was left")
}
