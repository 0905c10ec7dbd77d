package nettopo

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func validSpec(k Kind) Spec {
	s := Spec{Kind: k, Pod: "web", Address: netip.MustParsePrefix("10.88.0.2/24"), Uplink: "eth0"}
	if k.overlay() {
		s.VNI, s.Local, s.Remote = 77, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	} else {
		s.Gateway = netip.MustParseAddr("10.88.0.1")
	}
	if k == NAT {
		s.Publish = []uint16{6000, 8080}
	}
	return s
}

func TestCheckValid(t *testing.T) {
	for _, k := range Kinds() {
		require.NoError(t, validSpec(k).Check(), k)
	}
	s := validSpec(OverlayLinux)
	s.Pod = ""
	require.NoError(t, s.Check(), "it has no pod")
	s = validSpec(Veth)
	s.Address, s.Gateway = netip.MustParsePrefix("10.88.0.0/31"), netip.MustParseAddr("10.88.0.1")
	require.NoError(t, s.Check(), "both addresses of a /31 are hosts")
}

func TestCheckInvalid(t *testing.T) {
	var many [65]uint16
	for i := range many {
		many[i] = uint16(i + 1)
	}
	tests := []struct {
		name   string
		kind   Kind
		change func(*Spec)
		text   string
	}{
		{"no kind", NAT, func(s *Spec) { s.Kind = "" }, `kind "" is unknown: choose one of ["veth" "bridged" "nat" "overlay-linux" "overlay-nested"]`},
		{"no pod", Veth, func(s *Spec) { s.Pod = "" }, "pod is missing: veth takes the pod's network namespace"},
		{"no pod to nest", OverlayNested, func(s *Spec) { s.Pod = "" }, "pod is missing"},
		{"interface", Veth, func(s *Spec) { s.Interface = "a/b" }, `interface name "a/b"`},
		{"no uplink", Veth, func(s *Spec) { s.Uplink = "" }, `interface name "" is reserved`},
		{"way out of sysctl", Veth, func(s *Spec) { s.Uplink = ".." }, `interface name ".." is reserved`},
		{"no address", Veth, func(s *Spec) { s.Address = netip.Prefix{} }, "is no ipv4 address of a host"},
		{"ipv6", Veth, func(s *Spec) { s.Address = netip.MustParsePrefix("fd00::2/64") }, `"fd00::2/64" is no ipv4 address`},
		{"the network", Veth, func(s *Spec) { s.Address = netip.MustParsePrefix("10.88.0.0/24") }, `"10.88.0.0/24" is no ipv4 address of a host`},
		{"broadcast", Veth, func(s *Spec) { s.Address = netip.MustParsePrefix("10.88.0.255/24") }, `"10.88.0.255/24" is no`},
		{"everything", Veth, func(s *Spec) { s.Address = netip.MustParsePrefix("10.88.0.2/0") }, `"10.88.0.2/0" is no`},
		{"mapped", Veth, func(s *Spec) { s.Address = netip.MustParsePrefix("::ffff:10.88.0.2/120") }, "is no ipv4 address"},
		{"small mtu", Veth, func(s *Spec) { s.MTU = 67 }, "mtu 67 is not from 68 to 65535"},
		{"large mtu", Veth, func(s *Spec) { s.MTU = 65536 }, "mtu 65536"},
		{"no gateway", Veth, func(s *Spec) { s.Gateway = netip.Addr{} }, `gateway "" is no address of a host in 10.88.0.0/24`},
		{"gateway elsewhere", Bridged, func(s *Spec) { s.Gateway = netip.MustParseAddr("10.89.0.1") }, `gateway "10.89.0.1" is no address`},
		{"gateway is pod", NAT, func(s *Spec) { s.Gateway = s.Address.Addr() }, "gateway 10.88.0.2 is the pod's own address"},
		{"nothing published", NAT, func(s *Spec) { s.Publish = nil }, "0 ports to publish: nat takes 1 to 64"},
		{"too much published", NAT, func(s *Spec) { s.Publish = many[:] }, "65 ports to publish"},
		{"port 0", NAT, func(s *Spec) { s.Publish = []uint16{1, 0} }, "ports [1 0]"},
		{"port twice", NAT, func(s *Spec) { s.Publish = []uint16{1, 2, 1} }, "ports [1 2 1]"},
		{"published without nat", Bridged, func(s *Spec) { s.Publish = []uint16{1} }, "bridged publishes no ports: only nat does"},
		{"published in overlay", OverlayNested, func(s *Spec) { s.Publish = []uint16{1} }, "overlay-nested publishes no ports"},
		{"no vni", OverlayLinux, func(s *Spec) { s.VNI = 0 }, "vni 0 is not from 1 to 16777215"},
		{"large vni", OverlayLinux, func(s *Spec) { s.VNI = 1 << 24 }, "vni 16777216"},
		{"no local", OverlayLinux, func(s *Spec) { s.Local = netip.Addr{} }, `local end "" of the tunnel`},
		{"multicast", OverlayLinux, func(s *Spec) { s.Remote = netip.MustParseAddr("239.1.1.1") }, `remote end "239.1.1.1" of the tunnel`},
		{"tunnel to itself", OverlayLinux, func(s *Spec) { s.Remote = s.Local }, "both ends of the tunnel are 192.0.2.1"},
		{"mac of a group", OverlayLinux, func(s *Spec) { s.RemoteMAC = vnic.MAC{1} }, "remote mac 01:00:00:00:00:00 is that of a group"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := validSpec(tt.kind)
			tt.change(&s)
			err := s.Check()
			require.ErrorIs(t, err, vnic.ErrInvalid)
			require.ErrorContains(t, err, tt.text)
			require.ErrorIs(t, Up(t.Context(), s), vnic.ErrInvalid)
			assert.ErrorIs(t, Down(t.Context(), s), vnic.ErrInvalid)
		})
	}
}

func TestSpecJSON(t *testing.T) {
	tests := []struct {
		kind Kind
		want string
	}{
		{NAT, `{"kind":"nat","pod":"web","address":"10.88.0.2/24","gateway":"10.88.0.1","uplink":"eth0","publish":[6000,8080]}`},
		{OverlayLinux, `{"kind":"overlay-linux","pod":"web","address":"10.88.0.2/24","uplink":"eth0","vni":77,"local":"192.0.2.1","remote":"192.0.2.2"}`},
	}
	for _, tt := range tests {
		b, err := json.Marshal(validSpec(tt.kind))
		require.NoError(t, err)
		assert.JSONEq(t, tt.want, string(b))
		var back Spec
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, validSpec(tt.kind), back)
	}
}

func TestMAC(t *testing.T) {
	assert.Equal(t, "02:42:0a:58:00:02", MAC(netip.MustParseAddr("10.88.0.2")).String())
}

// FuzzSpec: a spec that another program sends is refused or fit to be built from.
func FuzzSpec(f *testing.F) {
	for _, k := range Kinds() {
		b, err := json.Marshal(validSpec(k))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"kind":"veth","pod":"web","address":"::ffff:10.0.0.2/120","uplink":".."}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Spec
		if json.Unmarshal(b, &s) != nil || s.Check() != nil {
			return
		}
		assert.False(t, MAC(s.Address.Addr()).IsZero())
		assert.NotContains(t, s.Uplink, "/", "it becomes a part of a path")
		assert.NotEqual(t, "..", s.Uplink)
		require.NoError(t, vnic.CheckInterface(s.podInterface()))
		again, err := json.Marshal(s)
		require.NoError(t, err)
		var back Spec
		require.NoError(t, json.Unmarshal(again, &back))
		assert.NoError(t, back.Check())
	})
}
