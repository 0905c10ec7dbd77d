package vnic_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestCheckLabels(t *testing.T) {
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint(i)] = ""
	}
	tests := []struct {
		name   string
		labels map[string]string
		ok     bool
	}{
		{"none", nil, true},
		{"words", map[string]string{"k8s.pod": "web-0", "note": "größer als 3 µs"}, true},
		{"largest", map[string]string{"k": strings.Repeat("v", 511)}, true},
		{"too large", map[string]string{"k": strings.Repeat("v", 512)}, false},
		{"too many", many, false},
		{"no key", map[string]string{"": "v"}, false},
		{"escape", map[string]string{"k": "\x1b[2J"}, false},
		{"escape of 8 bits", map[string]string{"k": "\u009b2J"}, false},
		{"line", map[string]string{"k": "a\nb"}, false},
		{"turned around", map[string]string{"k": "\u202egnp.exe"}, false},
		{"no utf-8", map[string]string{"k": "\xff"}, false},
		{"in the key", map[string]string{"\x07": "v"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := vnic.CheckLabels(tt.labels)
			if tt.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, vnic.ErrInvalid)
		})
	}
}

func TestPortMapping(t *testing.T) {
	any8080 := vnic.PortMapping{HostPort: 8080, Port: 80, Protocol: vnic.TCP}
	at := func(ip string) vnic.PortMapping { m := any8080; m.HostIP = netip.MustParseAddr(ip); return m }
	udp, other := any8080, any8080
	udp.Protocol, other.HostPort = vnic.UDP, 8081
	assert.Equal(t, "8080:80/tcp", any8080.String())
	assert.Equal(t, "192.0.2.1:8080:80/tcp", at("192.0.2.1").String())
	assert.Equal(t, "[2001:db8::1]:8080:80/tcp", at("2001:db8::1").String())
	for _, o := range []vnic.PortMapping{any8080, at("192.0.2.1"), at("2001:db8::1")} {
		assert.True(t, any8080.Overlaps(o) && o.Overlaps(any8080), o)
		assert.False(t, udp.Overlaps(o) || other.Overlaps(o), o)
		require.NoError(t, o.Validate(), o)
	}
	assert.False(t, at("192.0.2.1").Overlaps(at("192.0.2.2")))
	for _, bad := range []vnic.PortMapping{
		{Port: 80, Protocol: vnic.TCP},
		{HostPort: 80, Protocol: vnic.TCP},
		{HostPort: 80, Port: 80},
		{HostPort: 80, Port: 80, Protocol: "TCP"},
		at("127.0.0.1"), at("::1"), at("0.0.0.0"), at("::"), at("::ffff:192.0.2.1"), at("fe80::1%eth0"),
	} {
		require.ErrorIs(t, bad.Validate(), vnic.ErrInvalid, bad)
	}
}

func TestBandwidth(t *testing.T) {
	tests := []struct {
		name string
		rate vnic.Rate
		ok   bool
	}{
		{"none", vnic.Rate{}, true},
		{"least", vnic.Rate{Bits: vnic.MinRate}, true},
		{"most", vnic.Rate{Bits: vnic.MaxRate, Burst: vnic.MaxRate}, true},
		{"too little", vnic.Rate{Bits: vnic.MinRate - 1}, false},
		{"too much", vnic.Rate{Bits: vnic.MaxRate + 1}, false},
		{"burst alone", vnic.Rate{Burst: 1}, false},
		{"too large a burst", vnic.Rate{Bits: vnic.MinRate, Burst: vnic.MaxRate + 1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, out := vnic.Bandwidth{Ingress: tt.rate}.Validate(), vnic.Bandwidth{Egress: tt.rate}.Validate()
			if tt.ok {
				require.NoError(t, in)
				require.NoError(t, out)
				return
			}
			require.ErrorIs(t, in, vnic.ErrInvalid)
			require.ErrorIs(t, out, vnic.ErrInvalid)
			require.ErrorContains(t, in, "ingress")
			require.ErrorContains(t, out, "egress")
		})
	}
}
