package cni

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// TestServedNames: a network that serves names says so in the result, unless the
// configuration knows better.
func TestServedNames(t *testing.T) {
	serving := func() *lab {
		l := newLab()
		l.answer = func(r cniapi.Request) (cniapi.Response, error) {
			a := attachment(r.Attach)
			a.DNS = vnic.DNS{
				Nameservers: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Search: []string{"blue.brfuse.internal"}, Options: []string{"ndots:2"},
			}
			return cniapi.Response{Version: cniapi.Version, Attachment: &a}, nil
		}
		return l
	}
	l := serving()
	require.NoError(t, l.Add(args("1.1.0", "")))
	assert.Contains(t, compact(t, l.out.String()), `"dns":{"nameservers":["10.1.0.1"],"options":["ndots:2"],"search":["blue.brfuse.internal"]}`)
	l = serving()
	require.NoError(t, l.Add(args("1.1.0", `"dns":{"nameservers":["10.1.0.9"]}`)))
	assert.Contains(t, compact(t, l.out.String()), `"dns":{"nameservers":["10.1.0.9"]}`)
}
