package wire

import (
	"context"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
)

// BenchmarkCall compares a call over a session with ttrpc straight on the
// socket. docs/protocol.md has the ratio.
func BenchmarkCall(b *testing.B) {
	agent := &echoAgent{version: "v1"}
	for _, size := range []struct {
		name string
		text string
	}{{"64B", string(make([]byte, 40))}, {"64KiB", string(make([]byte, 64<<10))}} {
		agent.version = size.text
		b.Run("bare/"+size.name, func(b *testing.B) {
			host, guest := socketPair(b)
			srv, err := ttrpc.NewServer()
			require.NoError(b, err)
			agentv1.RegisterAgentService(srv, agent)
			var wg sync.WaitGroup
			wg.Go(func() { _ = srv.Serve(context.Background(), &oneShot{conn: guest, closed: make(chan struct{})}) })
			c := ttrpc.NewClient(host)
			run(b, c)
			_ = c.Close()
			_ = srv.Close()
			wg.Wait()
		})
		b.Run("session/"+size.name, func(b *testing.B) {
			hostEnd, guestEnd := socketPair(b)
			host, _ := openBoth(b.Context(), b, hostEnd, guestEnd, Config{}, agent.config())
			run(b, host.Client())
		})
	}
}

func run(b *testing.B, c *ttrpc.Client) {
	b.Helper()
	client := agentv1.NewAgentClient(c)
	b.ReportAllocs()
	for b.Loop() {
		_, err := client.Info(b.Context(), &agentv1.InfoRequest{})
		require.NoError(b, err)
	}
}
