package rtnl

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkMessage is an RTM_NEWLINK of link 7, "eth0", with so many 64-bit counters
// 1, 2, 3 and so on.
func linkMessage(counters int) []byte {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = 7
	var stats []byte
	for i := range counters {
		stats = append(stats, nl.Uint64Attr(uint64(i+1))...)
	}
	b := append(info.Serialize(), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("eth0")).Serialize()...)
	return append(b, nl.NewRtAttr(unix.IFLA_STATS64, stats).Serialize()...)
}

func TestParseLinkCounters(t *testing.T) {
	want := LinkCounters{
		Index: 7, Name: "eth0", RxMissed: 16,
		LinkStats: LinkStats{RxPackets: 1, TxPackets: 2, RxBytes: 3, TxBytes: 4, RxErrors: 5, TxErrors: 6, RxDropped: 7, TxDropped: 8},
	}
	for _, n := range []int{16, 23, 25} { // the row grows with the kernel
		got, err := parseLinkCounters(linkMessage(n))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := parseLinkCounters(linkMessage(15))
	require.ErrorContains(t, err, "counters of link 7: the kernel tells none")
	_, err = parseLinkCounters(nil)
	require.Error(t, err)
}

func TestIntegrationLinkCounters(t *testing.T) {
	_, c := podNS(t)
	var links []LinkCounters
	for range 2 { // a repeated question forgets the first answer
		require.NoError(t, c.Do(GetLinkCounters(&links)))
		names := map[string]string{}
		for _, l := range links {
			names[l.Name] = l.Kind
		}
		assert.Equal(t, map[string]string{"lo": "", "a": "veth", "b": "veth"}, names)
	}
}

func FuzzParseLinkCounters(f *testing.F) {
	f.Add(linkMessage(24))
	f.Add(linkMessage(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseLinkCounters(b); err != nil {
			assert.Zero(t, c)
		}
	})
}
