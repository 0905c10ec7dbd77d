package hostside

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestFindNIC(t *testing.T) {
	const text = "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n" +
		" \\ own: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\n" +
		"b: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:57\r\n" +
		" \\ brfn0123456789: index=0,type=tap,fd=23\r\n" +
		"c: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:58\r\n" +
		"d: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:59\r\n" +
		" \\ u: index=0,type=user,net=10.0.2.0,restrict=on\r\n"
	tests := []struct {
		name, mac string
		want      NICBackend
		found     bool
	}{
		{"opened by its name", "52:54:00:12:34:56", NICBackend{Kind: "tap", Tap: "tap0"}, true},
		{"passed as a descriptor", "52:54:00:12:34:57", NICBackend{Kind: "tap"}, true},
		{"nothing behind it", "52:54:00:12:34:58", NICBackend{}, true},
		{"user network", "52:54:00:12:34:59", NICBackend{Kind: "user"}, true},
		{"not there", "52:54:00:12:34:60", NICBackend{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mac, err := vnic.ParseMAC(tt.mac)
			require.NoError(t, err)
			got, found := findNIC(text, mac)
			assert.Equal(t, tt.found, found)
			assert.Equal(t, tt.want, got)
		})
	}
}
