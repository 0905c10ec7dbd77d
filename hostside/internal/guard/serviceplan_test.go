package guard

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func addrPorts(all ...string) []netip.AddrPort {
	var parsed []netip.AddrPort
	for _, s := range all {
		parsed = append(parsed, netip.MustParseAddrPort(s))
	}
	return parsed
}

func TestPlan(t *testing.T) {
	here, there := Target{To: netip.MustParseAddrPort("10.9.0.2:80"), Local: true}, Target{To: netip.MustParseAddrPort("10.9.0.50:80")}
	there6 := Target{To: netip.MustParseAddrPort("[fd00::50]:80")}
	own4, own6 := netip.MustParseAddr("10.9.0.254"), netip.MustParseAddr("fd00::fe")
	key, key6 := serviceKey{false, unix.IPPROTO_TCP, 80}, serviceKey{true, unix.IPPROTO_TCP, 80}
	none := map[netip.Addr]netip.Addr{}
	for _, tt := range []struct {
		name     string
		services []Service
		want     map[serviceKey]served
		problems []error
	}{
		{"nothing", nil, map[serviceKey]served{}, nil},
		{"without targets", []Service{{Name: "a", Protocol: vnic.TCP, Port: 80}}, map[serviceKey]served{}, nil},
		{
			"both families, and one target twice",
			[]Service{{Name: "a", Protocol: vnic.TCP, Port: 80, Targets: []Target{there6, here, there, here}, Source4: own4, Source6: own6}},
			map[serviceKey]served{
				key:  {"a", addrPorts("10.9.0.2:80", "10.9.0.50:80"), map[netip.Addr]netip.Addr{there.To.Addr(): own4}},
				key6: {"a", addrPorts("[fd00::50]:80"), map[netip.Addr]netip.Addr{there6.To.Addr(): own6}},
			},
			nil,
		},
		{
			"without an address for remote ones",
			[]Service{{Name: "a", Protocol: vnic.TCP, Port: 80, Targets: []Target{there6, here, there}, Source6: own6}},
			map[serviceKey]served{
				key:  {"a", addrPorts("10.9.0.2:80"), none},
				key6: {"a", addrPorts("[fd00::50]:80"), map[netip.Addr]netip.Addr{there6.To.Addr(): own6}},
			},
			[]error{vnic.ErrUnsupported},
		},
		{
			"one port twice",
			[]Service{
				{Name: "b", Protocol: vnic.TCP, Port: 80, Targets: []Target{there6}, Source6: own6},
				{Name: "a", Protocol: vnic.TCP, Port: 80, Targets: []Target{here}},
				{Name: "c", Protocol: vnic.UDP, Port: 80, Targets: []Target{here}},
			},
			map[serviceKey]served{
				key:                           {"a", addrPorts("10.9.0.2:80"), none},
				{false, unix.IPPROTO_UDP, 80}: {"c", addrPorts("10.9.0.2:80"), none},
			},
			[]error{vnic.ErrPortTaken},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, problems, err := plan(tt.services)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
			require.Len(t, problems, len(tt.problems))
			for i, want := range tt.problems {
				assert.ErrorIs(t, problems[i], want)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	target := func(s string) []Target { return []Target{{To: netip.MustParseAddrPort(s)}} }
	for _, tt := range []struct {
		service Service
		want    string
	}{
		{Service{Protocol: vnic.SCTP, Port: 80}, "protocol \"sctp\""},
		{Service{Protocol: vnic.TCP}, "port 0"},
		{Service{Protocol: vnic.TCP, Port: 80, Source4: netip.MustParseAddr("fd00::1")}, "source address"},
		{Service{Protocol: vnic.TCP, Port: 80, Source6: netip.MustParseAddr("10.9.0.1")}, "source address"},
		{Service{Protocol: vnic.TCP, Port: 80, Targets: []Target{{}}}, "target"},
		{Service{Protocol: vnic.TCP, Port: 80, Targets: target("10.9.0.2:0")}, "target 10.9.0.2:0"},
		{Service{Protocol: vnic.TCP, Port: 80, Targets: target("0.0.0.0:80")}, "target"},
		{Service{Protocol: vnic.TCP, Port: 80, Targets: target("[::ffff:10.9.0.2]:80")}, "target"},
		{Service{Protocol: vnic.TCP, Port: 80, Targets: target("[fe80::1%eth0]:80")}, "target"},
	} {
		tt.service.Name = "web"
		_, _, err := plan([]Service{tt.service})
		require.ErrorIs(t, err, vnic.ErrInvalid)
		assert.ErrorContains(t, err, "service web: "+tt.want)
	}
}

func TestArrange(t *testing.T) {
	for _, tt := range []struct{ name, old, now, want string }{
		{"first", "", "abc", "abc"},
		{"same", "abc", "abc", "abc"},
		{"other order", "abc", "cba", "abc"},
		{"one more", "abc", "dabc", "abcd"},
		{"another instead", "abc", "acd", "adc"},
		{"first one less", "abc", "bc", "cb"},
		{"last one less", "abc", "ba", "ab"},
		{"all others", "ab", "cde", "cde"},
		{"none", "ab", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			of := func(s string) []netip.AddrPort {
				all := []netip.AddrPort{}
				for _, b := range []byte(s) {
					all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, b}), 80))
				}
				return all
			}
			assert.Equal(t, of(tt.want), arrange(of(tt.old), of(tt.now)))
		})
	}
}

// What a change costs doesn't depend on how many targets stay.
func TestOneTargetIsAFewElements(t *testing.T) {
	var all []netip.AddrPort
	for i := range 1000 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80))
	}
	key := serviceKey{protocol: unix.IPPROTO_TCP, port: 80}
	of := func(targets []netip.AddrPort) elements {
		e := elements{}
		e.addService(key, served{name: "web", targets: targets})
		return e
	}
	m := mapsFor(false)
	counts := func(e elements) map[string]int {
		n := map[string]int{}
		for set, some := range e {
			n[set.Name] = len(some)
		}
		return n
	}
	less := arrange(all, all[1:])
	assert.Equal(t, map[string]int{m.services.Name: 1, m.targets.Name: 2}, counts(of(all).without(of(less))))
	assert.Equal(t, map[string]int{m.services.Name: 1, m.targets.Name: 1}, counts(of(less).without(of(all))))
	assert.Empty(t, of(all).without(of(all)))

	renamed := elements{m.services: []nftables.SetElement{of(all)[m.services][0]}}
	renamed[m.services][0].Comment = "other"
	assert.Equal(t, map[string]int{m.services.Name: 1}, counts(renamed.without(of(all))))
}

func TestChange(t *testing.T) {
	key := func(port uint16) serviceKey { return serviceKey{false, unix.IPPROTO_UDP, port} }
	tcp, v6 := serviceKey{false, unix.IPPROTO_TCP, 80}, serviceKey{true, unix.IPPROTO_UDP, 80}
	a, b := netip.MustParseAddrPort("10.9.0.2:8080"), netip.MustParseAddrPort("10.9.0.3:8080")
	own := netip.MustParseAddr("10.9.0.254")
	of := func(targets ...netip.AddrPort) served { return served{name: "web", targets: targets} }
	moved := served{"web", []netip.AddrPort{a}, map[netip.Addr]netip.Addr{a.Addr(): own}}
	const host = "192.0.2.1"
	flow := func(protocol uint8, to string, target netip.AddrPort) rtnl.Flow {
		return rtnl.Flow{Protocol: protocol, Source: netip.MustParseAddrPort("192.0.2.2:40000"), Destination: netip.MustParseAddrPort(to), Target: target}
	}
	untranslated := netip.MustParseAddrPort(host + ":80")
	elsewhere := netip.MustParseAddrPort("198.51.100.1:80")
	for _, tt := range []struct {
		name     string
		old, now map[serviceKey]served
		flow     rtnl.Flow
		stale    bool
	}{
		{"target is gone", map[serviceKey]served{tcp: of(a, b)}, map[serviceKey]served{tcp: of(b)}, flow(unix.IPPROTO_TCP, host+":80", a), true},
		{"target stays", map[serviceKey]served{tcp: of(a, b)}, map[serviceKey]served{tcp: of(b)}, flow(unix.IPPROTO_TCP, host+":80", b), false},
		{"another protocol", map[serviceKey]served{tcp: of(a)}, nil, flow(unix.IPPROTO_UDP, host+":80", a), false},
		{"another port", map[serviceKey]served{tcp: of(a)}, nil, flow(unix.IPPROTO_TCP, host+":81", a), false},
		{"directly to the pod", map[serviceKey]served{key(8080): of(a)}, nil, flow(unix.IPPROTO_UDP, a.String(), a), false},
		{"service is gone", map[serviceKey]served{key(80): of(a)}, nil, flow(unix.IPPROTO_UDP, host+":80", a), true},
		{"target has moved", map[serviceKey]served{key(80): of(a)}, map[serviceKey]served{key(80): moved}, flow(unix.IPPROTO_UDP, host+":80", a), true},
		{"service has begun", nil, map[serviceKey]served{key(80): of(a)}, flow(unix.IPPROTO_UDP, host+":80", untranslated), true},
		{"service has begun, to another host", nil, map[serviceKey]served{key(80): of(a)}, flow(unix.IPPROTO_UDP, elsewhere.String(), elsewhere), false},
		{"service was there", map[serviceKey]served{key(80): of(a)}, map[serviceKey]served{key(80): of(a, b)}, flow(unix.IPPROTO_UDP, host+":80", untranslated), false},
		{"service of tcp has begun", nil, map[serviceKey]served{tcp: of(a)}, flow(unix.IPPROTO_TCP, host+":80", untranslated), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stale := changeOf(tt.old, tt.now, nil).Stale([]netip.Addr{netip.MustParseAddr(host)})
			assert.Equal(t, tt.stale, stale(tt.flow))
		})
	}
	for _, tt := range []struct {
		old, now map[serviceKey]served
		want     []bool
	}{
		{map[serviceKey]served{tcp: of(a)}, map[serviceKey]served{tcp: of(a, b)}, nil},
		{map[serviceKey]served{tcp: of(a)}, nil, []bool{false}},
		{nil, map[serviceKey]served{v6: of(a)}, []bool{true}},
		{map[serviceKey]served{tcp: of(a)}, map[serviceKey]served{v6: of(a)}, []bool{false, true}},
	} {
		assert.Equal(t, tt.want, changeOf(tt.old, tt.now, nil).Families(), fmt.Sprint(tt.old, tt.now))
	}
}
