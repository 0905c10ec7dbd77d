package wire

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
)

func TestSessionCallsBothWays(t *testing.T) {
	for _, tt := range []struct {
		name string
		pair func(testing.TB) (net.Conn, net.Conn)
	}{
		{"socketpair", socketPair},
		{"pipe", func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			ctx := testContext(t)
			got := make(chan *agentv1.ReportRequest, 1)
			sink := &sinkHost{report: func(_ context.Context, r *agentv1.ReportRequest) error {
				got <- r
				return nil
			}}
			agent := &echoAgent{version: "v1"}
			a, b := tt.pair(t)
			host, guest := openBoth(ctx, t, a, b, sink.config(), agent.config())
			assert.Equal(t, host.Nonce(), guest.Nonce())

			version, err := info(ctx, host)
			require.NoError(t, err)
			assert.Equal(t, "v1", version)
			_, err = agentv1.NewHostClient(guest.Client()).Report(ctx, &agentv1.ReportRequest{Mac: "02:00:00:00:00:01"})
			require.NoError(t, err)
			assert.Equal(t, "02:00:00:00:00:01", await(t, got, "the report").GetMac())

			require.NoError(t, host.Err())
			require.NoError(t, host.Close())
			await(t, guest.Done(), "the guest's end of the session")
			require.ErrorIs(t, host.Err(), ErrClosed)
			require.ErrorIs(t, guest.Err(), errPeerClosed)
			_, err = info(ctx, host)
			require.ErrorIs(t, err, ErrClosed)
		})
	}
}
