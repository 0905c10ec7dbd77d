package echo

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestRequest(t *testing.T) {
	assert.Equal(t, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, request(0, 0))
	for _, v := range [][2]uint16{{1, 2}, {0xffff, 0xffff}, {0xf800, 0x0001}, {0xf7ff, 0}} {
		b := request(v[0], v[1])
		sum := uint32(0)
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		assert.Equal(t, uint32(0xffff), sum, "checksum of %#x", v)
	}
}

func TestIsReply(t *testing.T) {
	reply := []byte{0, 0, 0, 0, 0x12, 0x34, 0, 1}
	assert.True(t, isReply(reply, 0x1234))
	assert.False(t, isReply(reply, 0x1235), "another's")
	assert.False(t, isReply(reply[:7], 0x1234), "short")
	assert.False(t, isReply(request(0x1234, 1), 0x1234), "our own request")
}

// TestIntegrationFirst pings an address that answers, one that nobody has, and
// one to which there is no route.
func TestIntegrationFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	self, nobody := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")
	require.NoError(t, ns.Do(func() error { return island(self, nobody) }))

	p, err := New(ns)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = p.First(ctx, nobody)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "ping 10.99.0.2: await echo reply: context deadline exceeded")

	start := time.Now()
	at, err := p.First(t.Context(), self)
	require.NoError(t, err)
	assert.True(t, at.After(start))

	_, err = p.First(t.Context(), netip.MustParseAddr("10.98.0.1"))
	assert.ErrorIs(t, err, unix.ENETUNREACH)
}

// island makes a bridge without ports that has the address self, in the
// calling thread's namespace. Packets to nobody vanish in it.
func island(self, nobody netip.Addr) error {
	h, err := rtnl.New()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.AddBridge(rtnl.Bridge{Name: "island", MAC: vnic.NewMAC(), MTU: vnic.DefaultMTU}); err != nil {
		return err
	}
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	link, err := c.Link("island")
	if err == nil {
		const lo = 1
		err = c.Do(rtnl.SetUp(lo), rtnl.SetAddr(link.Index, netip.PrefixFrom(self, 24)), rtnl.SetUp(link.Index),
			rtnl.SetNeighbour(link.Index, nobody, vnic.NewMAC()))
	}
	return errors.Join(err, c.Close())
}
