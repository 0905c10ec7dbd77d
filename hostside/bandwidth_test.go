package hostside

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/vnic"
)

// rateOf has from send to a port of to as fast as it can, or, by UDP, at thrice
// the limit, and returns the bytes per second that arrive once the limit's bucket
// is empty.
func rateOf(t *testing.T, network string, from, to *netnstest.NS, address string, limit float64) float64 {
	t.Helper()
	stream, closer := receiver(t, network, to, address)
	c, err := dial(t, from, network, address)
	require.NoError(t, err)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		send(c, network, limit)
	}()
	reader := stream()
	discard := func(n float64) {
		_, err := io.CopyN(io.Discard, reader, int64(n))
		require.NoError(t, err)
	}
	discard(limit * 1.3) // a second's worth is what the host lets pass at once
	start := time.Now()
	discard(limit * 1.5)
	rate := limit * 1.5 / time.Since(start).Seconds()
	require.NoError(t, errors.Join(c.Close(), closer()))
	<-sent
	return rate
}

// send writes until the connection is closed.
func send(c net.Conn, network string, limit float64) {
	buf := make([]byte, 1000)
	if network == "tcp" {
		buf = make([]byte, 64<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	begun, done := time.Now(), 0.0
	for now := range tick.C {
		for ; done < 3*limit*now.Sub(begun).Seconds(); done += float64(len(buf)) {
			if _, err := c.Write(buf); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}
}

// receiver returns the stream of what arrives on a port, and how to end it.
func receiver(t *testing.T, network string, ns *netnstest.NS, address string) (stream func() io.Reader, closer func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	if network == "udp" {
		var c net.PacketConn
		ns.In(func() (err error) {
			c, err = (&net.ListenConfig{}).ListenPacket(t.Context(), network, address)
			return err
		})
		require.NoError(t, c.SetDeadline(deadline))
		return func() io.Reader { return c.(*net.UDPConn) }, c.Close
	}
	var l net.Listener
	ns.In(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), network, address)
		return err
	})
	require.NoError(t, l.(*net.TCPListener).SetDeadline(deadline))
	var c net.Conn
	return func() io.Reader {
			var err error
			c, err = l.Accept()
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(deadline))
			return c
		}, func() error {
			return errors.Join(c.Close(), l.Close())
		}
}

func TestIntegrationBandwidth(t *testing.T) {
	h, y, ns := newTestHost(t)
	p := testPlug()
	const ingress, egress = 16_000_000, 24_000_000 // bits per second
	p.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: ingress}, Egress: vnic.Rate{Bits: egress}}
	_, err := h.Plug(t.Context(), p)
	require.NoError(t, err)
	pod := newPod(t, y, p)
	for _, tt := range []struct {
		name     string
		network  string
		from, to *netnstest.NS
		address  string
		bits     float64
	}{
		{"tcp to the pod", "tcp", ns, pod, "10.9.0.2:5000", ingress},
		{"udp to the pod", "udp", ns, pod, "[fd00:9::2]:5000", ingress},
		{"tcp from the pod", "tcp", pod, ns, "[fd00:9::1]:5000", egress},
		{"udp from the pod", "udp", pod, ns, "10.9.0.1:5000", egress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ratio := rateOf(t, tt.network, tt.from, tt.to, tt.address, tt.bits/8) * 8 / tt.bits
			t.Logf("%.3f of the limit", ratio)
			assert.InDelta(t, 0.9, ratio, 0.4)
		})
	}
	dropped, err := h.Dropped(t.Context())
	require.NoError(t, err)
	assert.NotZero(t, dropped["rate"], "what is beyond the limit is counted")
	for reason, n := range dropped {
		if reason != "rate" {
			assert.Zero(t, n, reason)
		}
	}
}

func TestIntegrationBandwidthComesAndGoes(t *testing.T) {
	h, _, ns := newTestHost(t)
	p := testPlug()
	tap := p.ID.TapName()
	shape := func() string { return ns.Run("tc", "qdisc", "show", "dev", tap) }
	filter := func() string { return ns.Run("nft", "-s", "list", "table", "bridge", "brfuse") }
	plug := func(b vnic.Bandwidth) {
		p.Bandwidth = b
		_, err := h.Plug(t.Context(), p)
		require.NoError(t, err)
	}
	plug(vnic.Bandwidth{})
	bareShape := shape()
	plug(vnic.Bandwidth{Ingress: vnic.Rate{Bits: 8_000_000, Burst: 800_000}, Egress: vnic.Rate{Bits: 8_000_000, Burst: 80_000_000}})
	assert.Contains(t, shape(), "tbf bf: root")
	assert.Contains(t, shape(), "rate 8Mbit burst 100000b")
	assert.Contains(t, filter(), "limit rate over 1000000 bytes/second burst 9000000 bytes counter name \"rate\" drop")
	plug(vnic.Bandwidth{Ingress: vnic.Rate{Bits: 50_000_000_000}, Egress: vnic.Rate{Bits: 8_000}})
	assert.Contains(t, shape(), "rate 50Gbit")
	assert.Contains(t, filter(), "limit rate over 1000 bytes/second burst 66584 bytes")
	assert.NotContains(t, filter(), "1000000 bytes")
	plug(vnic.Bandwidth{})
	assert.Equal(t, bareShape, shape())
	assert.NotContains(t, filter(), "limit")
	assert.NotContains(t, filter(), "rate-"+tap)

	ns.Run("tc", "qdisc", "add", "dev", tap, "root", "handle", "1:", "htb")
	plug(vnic.Bandwidth{})
	assert.Contains(t, shape(), "htb 1: root", "someone else's is left alone")

	plug(vnic.Bandwidth{Egress: vnic.Rate{Bits: 8_000_000}})
	require.NoError(t, h.Unplug(t.Context(), "vm", p.ID))
	assert.NotContains(t, filter(), tap)
	require.NoError(t, h.SetNetwork(t.Context(), testNet)) // makes the tables anew
	assert.Equal(t, "0", strings.TrimSpace(ns.Run("sh", "-c", "nft list table bridge brfuse | grep -c -e limit -e police || true")))
}
