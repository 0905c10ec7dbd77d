package announce

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestFrame(t *testing.T) {
	mac := vnic.MAC{0x02, 0x00, 0x5e, 0x00, 0x53, 0x01}
	tests := []struct {
		name string
		addr string
		want string
	}{
		{
			"arp", "192.0.2.7", `
			ffffffffffff 02005e005301 0806
			0001 0800 06 04 0001
			02005e005301 c0000207
			000000000000 c0000207`,
		},
		{
			// The checksum comes from another implementation.
			"advertisement", "2001:db8::7", `
			333300000001 02005e005301 86dd
			60000000 0020 3a ff
			20010db8000000000000000000000007
			ff020000000000000000000000000001
			88 00 481e 20000000
			20010db8000000000000000000000007
			02 01 02005e005301`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.Join(strings.Fields(tt.want), ""))
			require.NoError(t, err)
			assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(Frame(mac, netip.MustParseAddr(tt.addr))))
		})
	}
}

// A receiver sums all words with the checksum in place and gets all ones.
func TestChecksumVerifies(t *testing.T) {
	for _, a := range []string{"fe80::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::"} {
		f := Frame(vnic.NewMAC(), netip.MustParseAddr(a))
		msg := f[etherLen+ipv6Len:]
		src, dst := [16]byte(f[etherLen+8:]), [16]byte(f[etherLen+24:])
		assert.Zero(t, checksum(src, dst, msg), a)
		binary.BigEndian.PutUint16(msg[4:], 0x1234) // and not when a word changes
		assert.NotZero(t, checksum(src, dst, msg), a)
	}
}
