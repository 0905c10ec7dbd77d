package guestlink

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/vnic"
)

// histogram returns one of a value, encoded.
func histogram(tb testing.TB) string {
	tb.Helper()
	h := netload.NewHistogram()
	h.Record(time.Millisecond)
	text, err := h.MarshalText()
	require.NoError(tb, err)
	return string(text)
}

// geometry returns the histogram of one value with another header.
func geometry(tb testing.TB, digits uint32, most uint64) string {
	tb.Helper()
	raw, err := base64.StdEncoding.DecodeString(histogram(tb))
	require.NoError(tb, err)
	z, err := zlib.NewReader(bytes.NewReader(raw[outerHeader:]))
	require.NoError(tb, err)
	var inner bytes.Buffer
	_, err = inner.ReadFrom(z)
	require.NoError(tb, err)
	binary.BigEndian.PutUint32(inner.Bytes()[12:], digits)
	binary.BigEndian.PutUint64(inner.Bytes()[24:], most)
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, err = w.Write(inner.Bytes())
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	binary.BigEndian.PutUint32(raw[4:], uint32(out.Len()))
	return base64.StdEncoding.EncodeToString(append(raw[:outerHeader:outerHeader], out.Bytes()...))
}

func benchResponse(tb testing.TB) *agentv1.BenchRunResponse {
	tb.Helper()
	cost := func() *agentv1.BenchCost {
		return &agentv1.BenchCost{ElapsedNanos: 1e9, UserNanos: 1e8, Drops: map[string]uint64{"eth0": 1}}
	}
	return &agentv1.BenchRunResponse{ElapsedNanos: 1e9, Sent: 3, Received: 2, Lost: 1, Bytes: 128, Latency: histogram(tb), Client: cost(), Server: cost()}
}

func TestBenchResultIsChecked(t *testing.T) {
	good, err := toBenchResult(benchResponse(t))
	require.NoError(t, err)
	assert.Equal(t, time.Second, good.Elapsed)
	assert.InEpsilon(t, time.Millisecond, good.Latency.Percentile(50), 0.001)
	assert.Equal(t, uint64(1), good.Server.Drops["eth0"])

	for _, tt := range []struct {
		name  string
		spoil func(*agentv1.BenchRunResponse)
		want  string
	}{
		{"no time", func(m *agentv1.BenchRunResponse) { m.ElapsedNanos = 0 }, "measured for 0s"},
		{"long", func(m *agentv1.BenchRunResponse) { m.ElapsedNanos = math.MaxInt64 }, "measured for"},
		{"many", func(m *agentv1.BenchRunResponse) { m.Bytes = math.MaxUint64 }, "bytes"},
		{"more lost than sent", func(m *agentv1.BenchRunResponse) { m.Lost = 4 }, "4 lost"},
		{"no base64", func(m *agentv1.BenchRunResponse) { m.Latency = "%" }, "histogram: illegal base64"},
		{"no histogram", func(m *agentv1.BenchRunResponse) { m.Latency = "AAAA" }, "histogram: 3 bytes"},
		{"long histogram", func(m *agentv1.BenchRunResponse) { m.Latency = strings.Repeat("A", maxHistogram+4) }, "histogram of 65540 bytes"},
		{"cut histogram", func(m *agentv1.BenchRunResponse) { m.Latency = m.Latency[:len(m.Latency)/8*4] }, "histogram: "},
		{"fine histogram", func(m *agentv1.BenchRunResponse) { m.Latency = geometry(t, 5, 1e9) }, "5 digits"},
		{"wide histogram", func(m *agentv1.BenchRunResponse) { m.Latency = geometry(t, 3, math.MaxInt64) }, "3 digits up to"},
		{"negative CPU", func(m *agentv1.BenchRunResponse) { m.Client.IrqNanos = -1 }, "-1ns of CPU"},
		{"much CPU", func(m *agentv1.BenchRunResponse) { m.Server.UserNanos = math.MaxInt64 }, "of CPU within 1s"},
		{"device", func(m *agentv1.BenchRunResponse) { m.Server.Drops = map[string]uint64{"\x1b[2J": 1} }, "unprintable text"},
		{"drops", func(m *agentv1.BenchRunResponse) { m.Server.Drops["eth0"] = math.MaxUint64 }, "drops of eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := benchResponse(t)
			tt.spoil(m)
			_, err := toBenchResult(m)
			require.ErrorIs(t, err, errAnswer)
			require.ErrorContains(t, err, tt.want)
			assert.Empty(t, vnic.CodeOf(err), "an agent's nonsense is not the caller's")
		})
	}
	_, err = toBenchResult(&agentv1.BenchRunResponse{ElapsedNanos: 1})
	require.NoError(t, err, "no latency and no cost")
}

func TestBenchPlaceIsChecked(t *testing.T) {
	p, err := toBenchPlace(&agentv1.BenchOpenResponse{Netns: "/proc/7/ns/net", Port: 4711, Addresses: []string{"192.0.2.1"}})
	require.NoError(t, err)
	assert.Equal(t, BenchPlace{Netns: "/proc/7/ns/net", Port: 4711, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, p)
	for _, m := range []*agentv1.BenchOpenResponse{
		{},
		{Port: 65536},
		{Port: 1, Netns: "\n"},
		{Port: 1, Addresses: []string{"x"}},
		{Port: 1, Addresses: []string{"fd00::1"}},
		{Port: 1, Addresses: []string{"127.0.0.1"}},
		{Port: 1, Addresses: []string{"224.0.0.1"}},
		{Port: 1, Addresses: make([]string, 17)},
	} {
		_, err := toBenchPlace(m)
		require.ErrorIs(t, err, errAnswer, "%v", m)
	}
}

func FuzzToBenchResult(f *testing.F) {
	seed, err := proto.Marshal(benchResponse(f))
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m agentv1.BenchRunResponse
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		r, err := toBenchResult(&m)
		if err != nil {
			require.ErrorIs(t, err, errAnswer)
			return
		}
		assert.Positive(t, r.Elapsed)
		if r.Latency != nil {
			assert.GreaterOrEqual(t, r.Latency.Percentile(99), r.Latency.Percentile(1))
		}
	})
}
