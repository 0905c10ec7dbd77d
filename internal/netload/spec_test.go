package netload

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSpecCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		spec Spec
		want string // of the error; "" for none
	}{
		{"defaults", Spec{Kind: TCPStream, Size: 1}, ""},
		{"largest", Spec{Kind: TCPStream, Size: MaxTCPSize, Flows: 16, Duration: MaxDuration, Reverse: true}, ""},
		{"paced", Spec{Kind: UDPStream, Size: MinUDPSize, Rate: 0.5}, ""},
		{"no kind", Spec{Size: 1}, `kind ""; use tcp_stream,`},
		{"no size", Spec{Kind: TCPRR}, "size 0; a tcp_rr takes 1 to 1048576 bytes"},
		{"small datagram", Spec{Kind: UDPRR, Size: 15}, "size 15; a udp_rr takes 16 to 65507 bytes"},
		{"large datagram", Spec{Kind: UDPStream, Size: 65508}, "size 65508"},
		{"small connection", Spec{Kind: TCPCRR, Size: 15}, "size 15; a tcp_crr takes 16"},
		{"large message", Spec{Kind: TCPStream, Size: math.MaxInt}, "size 9223372036854775807"},
		{"flows", Spec{Kind: TCPRR, Size: 1, Flows: 65}, "flows 65; use 1 to 64"},
		{"negative flows", Spec{Kind: TCPRR, Size: 1, Flows: -1}, "flows -1"},
		{"memory", Spec{Kind: TCPRR, Size: MaxTCPSize, Flows: 17}, "size 1048576 times flows 17"},
		{"reverse exchange", Spec{Kind: TCPRR, Size: 1, Reverse: true}, "reverse tcp_rr"},
		{"long", Spec{Kind: TCPRR, Size: 1, Duration: MaxDuration, WarmUp: 1}, "duration 5m0s after a warm-up of 1ns"},
		{"overflow", Spec{Kind: TCPRR, Size: 1, Duration: math.MaxInt64, WarmUp: math.MaxInt64}, "duration"},
		{"negative", Spec{Kind: TCPRR, Size: 1, WarmUp: -1}, "duration"},
		{"count", Spec{Kind: TCPRR, Size: 1, Count: -1}, "count -1"},
		{"rate", Spec{Kind: UDPStream, Size: 64, Rate: math.NaN()}, "rate NaN"},
		{"rate of a connection", Spec{Kind: TCPStream, Size: 64, Rate: 1}, "rate of a tcp_stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.spec.Check()
			if c.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrSpec)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestRates(t *testing.T) {
	r := Result{Elapsed: 2 * time.Second, Sent: 10, Received: 8, Lost: 1, Bytes: 512}
	assert.InDelta(t, 256, r.BytesPerSecond(), 1e-9)
	assert.InDelta(t, 4, r.MessagesPerSecond(), 1e-9)
	assert.InDelta(t, 5, r.SentPerSecond(), 1e-9)
	assert.InDelta(t, 0.1, r.Loss(), 1e-9)
	assert.Zero(t, Result{Bytes: 1}.BytesPerSecond())
	assert.Zero(t, Result{}.Loss())
}
