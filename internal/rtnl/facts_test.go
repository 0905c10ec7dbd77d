package rtnl

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestFactsDiffer(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b Facts
		want []string
	}{
		{"none", nil, nil, nil},
		{"same", Facts{"mtu": "1"}, Facts{"mtu": "1"}, nil},
		{"other value", Facts{"mtu": "1", "mac": "2"}, Facts{"mtu": "3", "mac": "2"}, []string{"mtu"}},
		{"one too few and one too many", Facts{"xdp": "1", "mac": "2"}, Facts{"alias": "", "mac": "2"}, []string{"alias", "xdp"}},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, tt.a.Differ(tt.b)) })
	}
}

// The MTU is a setting of IPv6 too, at a place of its own.
func TestFactsSetMTU(t *testing.T) {
	f := Facts{factIPv6: string(make([]byte, 16))}
	f.SetMTU(1400)
	want := Facts{"mtu": string(nl.Uint32Attr(1400)), factIPv6: string(append(make([]byte, 8), append(nl.Uint32Attr(1400), 0, 0, 0, 0)...))}
	assert.Equal(t, want, f)
	f = Facts{factIPv6: "short"}
	f.SetMTU(1400)
	assert.Equal(t, "short", f[factIPv6])
}

// What a link is set to are facts, and what it is called, or counts, isn't.
func TestIntegrationFacts(t *testing.T) {
	_, c := podNS(t)
	var l Link
	look := func(name string) Facts {
		t.Helper()
		f := Facts{}
		require.NoError(t, c.Do(GetFacts(f, &l, name)))
		require.Equal(t, name, l.Name)
		more, err := c.EthtoolFacts(name, nil)
		require.NoError(t, err)
		again, err := c.EthtoolFacts(name, more)
		require.NoError(t, err)
		require.Equal(t, more, again, "what is there is asked for again")
		f.Add(more)
		var ingress bool
		require.NoError(t, c.Do(GetIngress(&ingress, l.Index)))
		assert.False(t, ingress)
		return f
	}
	before := look("a")
	assert.Contains(t, before, "mtu")
	assert.Contains(t, before, "offloads")
	assert.NotContains(t, before, "wake-on-lan", "its driver has none")
	require.NoError(t, c.Do(SetLink(l.Index, Change{Name: "c"})))
	assert.Empty(t, before.Differ(look("c")))
	require.NoError(t, c.Do(SetLink(l.Index, Change{MTU: 1400, TxQueue: 77, Flags: unix.IFF_PROMISC, Mask: unix.IFF_PROMISC})))
	now := look("c")
	assert.Equal(t, []string{"flags", factIPv6, "mtu", "promiscuity", "txqueuelen"}, before.Differ(now))
	before.SetMTU(1400)
	assert.Equal(t, []string{"flags", "promiscuity", "txqueuelen"}, before.Differ(now))
	assert.Equal(t, 77, l.TxQueue)

	require.ErrorIs(t, c.Do(GetFacts(Facts{}, &l, "none")), unix.ENODEV)
	_, err := c.EthtoolFacts("none", nil)
	require.Error(t, err)
}

func FuzzFacts(f *testing.F) {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize()
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	inet6 := spec.AddRtAttr(unix.AF_INET6, nil)
	inet6.AddRtAttr(unix.IFLA_INET6_CONF, make([]byte, 16))
	f.Add(append(info, spec.Serialize()...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) < unix.SizeofIfInfomsg {
			return
		}
		facts := Facts{}
		_ = facts.readLink(b)
		facts.SetMTU(1400)
		facts[factChannels] = string(b)
		_ = facts.Queues()
	})
}
