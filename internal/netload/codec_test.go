package netload

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHeader(t *testing.T) {
	h := header{role: roleData, flow: 63, run: 0x0102030405060708}
	b := make([]byte, headerLen)
	h.put(b)
	assert.Equal(t, []byte("BrL1\x02\x3f\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08"), b)
	got, err := parseHeader(b)
	require.NoError(t, err)
	assert.Equal(t, h, got)
	for name, bad := range map[string]string{
		"short":    "BrL1\x02\x3f\x00\x00\x01\x02\x03\x04\x05\x06\x07",
		"magic":    "GET / HTTP/1.1\r\n",
		"role":     "BrL1\x04\x3f\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08",
		"no role":  "BrL1\x00\x3f\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08",
		"flow":     "BrL1\x02\x40\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08",
		"reserved": "BrL1\x02\x3f\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08",
	} {
		_, err := parseHeader([]byte(bad))
		assert.ErrorIs(t, err, errHeader, name)
	}
}

func TestDatagram(t *testing.T) {
	d := datagram{run: 7, phase: 2, seq: seqMask}
	b := make([]byte, datagramLen)
	d.put(b)
	got, ok := parseDatagram(b)
	assert.True(t, ok)
	assert.Equal(t, d, got)
	_, ok = parseDatagram(b[:datagramLen-1])
	assert.False(t, ok)
	datagram{run: 7, phase: 2, seq: seqMask + 1}.put(b)
	got, _ = parseDatagram(b)
	assert.Equal(t, datagram{run: 7, phase: 2}, got, "a seq too large leaves the phase alone")
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("BrL1\x02\x3f\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08"))
	f.Add([]byte("BrL1\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHeader(in)
		if err != nil {
			return
		}
		out := make([]byte, headerLen)
		h.put(out)
		assert.Equal(t, in[:headerLen], out)
		assert.Less(t, h.flow, uint8(MaxFlows))
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add([]byte("0123456701234567 and more"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, ok := parseDatagram(in)
		if !ok {
			assert.Less(t, len(in), datagramLen)
			return
		}
		out := make([]byte, datagramLen)
		d.put(out)
		assert.Equal(t, in[:datagramLen], out)
	})
}

func TestParseRequest(t *testing.T) {
	good := `{"op":"open","version":1,"spec":{"kind":"tcp_rr","size":64,"flows":2,"duration":1000000000,"warmUp":0}}`
	r, err := parseRequest([]byte(good))
	require.NoError(t, err)
	assert.Equal(t, Spec{Kind: TCPRR, Size: 64, Flows: 2, Duration: time.Second}, *r.Spec)
	for name, bad := range map[string]string{
		"no JSON":       `GET / HTTP/1.1`,
		"no op":         `{}`,
		"no spec":       `{"op":"open","version":1}`,
		"other version": strings.Replace(good, `"version":1`, `"version":2`, 1),
		"no phase":      `{"op":"begin"}`,
		"large phase":   `{"op":"begin","phase":256}`,
		"many flows":    `{"op":"drain","sent":[` + strings.Repeat("1,", MaxFlows) + `1]}`,
		"negative sent": `{"op":"drain","sent":[-1]}`,
	} {
		_, err := parseRequest([]byte(bad))
		require.ErrorIs(t, err, errRequest, name)
	}
	_, err = parseRequest([]byte(strings.Replace(good, "64", "0", 1)))
	assert.ErrorIs(t, err, ErrSpec)
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"op":"open","version":1,"spec":{"kind":"udp_stream","size":64,"rate":1e3}}`))
	f.Add([]byte(`{"op":"begin","phase":2,"measured":true}`))
	f.Add([]byte(`{"op":"drain","sent":[1,2]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parseRequest(in)
		if err != nil {
			return
		}
		out, err := json.Marshal(r)
		require.NoError(t, err)
		again, err := parseRequest(out)
		require.NoError(t, err)
		assert.Equal(t, r.Spec, again.Spec)
		if r.Op == opOpen {
			s := r.Spec.withDefaults()
			assert.True(t, s.Size > 0 && s.Flows > 0 && s.Size*s.Flows <= MaxBytes && s.total() <= MaxDuration)
		}
	})
}

func TestHistogram(t *testing.T) {
	h := NewHistogram()
	assert.Zero(t, h.Percentile(50))
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Microsecond)
	}
	other := NewHistogram()
	other.Record(time.Hour)
	other.Record(-1)
	h.Merge(other)
	assert.Equal(t, uint64(1002), h.Count())
	assert.InEpsilon(t, 500*time.Microsecond, h.Percentile(50), 0.002)
	assert.InEpsilon(t, 990*time.Microsecond, h.Percentile(99), 0.003)
	assert.InEpsilon(t, longest, h.Max(), 0.001)
	assert.Positive(t, h.Mean())

	b, err := json.Marshal(Result{Spec: Spec{Kind: TCPRR, Size: 64}, Received: 1002, Latency: h})
	require.NoError(t, err)
	var back Result
	require.NoError(t, json.Unmarshal(b, &back))
	assert.Equal(t, h.Count(), back.Latency.Count())
	for _, p := range []float64{0, 50, 99, 99.9, 100} {
		assert.Equal(t, h.Percentile(p), back.Percentile(p))
	}
	assert.Equal(t, TCPRR, back.Kind)
	assert.Error(t, back.Latency.UnmarshalText([]byte("nonsense")))
}

func TestFitting(t *testing.T) {
	assert.Nil(t, fitting(nil, 10))
	assert.JSONEq(t, `{"a":1}`, string(fitting([]byte(`{"a":1}`), 10)))
	assert.JSONEq(t, `{"error":"the observation has 11 bytes, more than 10"}`, string(fitting([]byte(`[1,2,3,4,5]`), 10)))
	assert.JSONEq(t, `{"error":"the observation is no JSON"}`, string(fitting([]byte(`{`), 10)))
}
