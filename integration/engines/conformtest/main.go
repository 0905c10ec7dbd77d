// Command conformtest runs in a guest in place of brfuse-agent: it serves the
// channel as the agent does, and has what it asks of the hypervisor meet the
// rules that fronts of container engines rely on:
//
//	conformtest NETWORK FORBIDDEN POD POD
//
// Its output and its code are those of a test.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/guestside/hostclient/hosttest"
)

// limit bounds the whole; an emulated guest is slow.
const limit = 3 * time.Minute

func main() {
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "Conform", F: conform}}, nil, nil)
}

// door is a front door that passes the client on.
type door chan<- *hostclient.Client

// Serve implements agentd.FrontDoor.
func (door) Serve(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d door) open(host *hostclient.Client, _ *guestside.Agent) (agentd.FrontDoor, error) {
	d <- host
	return d, nil
}

func conform(t *testing.T) {
	t.Helper()
	require.Equal(t, 4, flag.NArg(), "NETWORK FORBIDDEN POD POD")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	clients := make(chan *hostclient.Client, 1)
	served := make(chan error, 1)
	go func() {
		served <- agentd.Serve(ctx, agentd.Setup{
			Doors: []agentd.Door{{Name: "conform", Open: door(clients).open}}, Version: "conform",
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}()
	defer func() {
		cancel()
		assert.ErrorIs(t, <-served, context.Canceled)
	}()
	client := receive(ctx, t, clients, "the agent")
	receive(ctx, t, client.Notify(), "a session with the daemon")
	hosttest.Conform(t, client, hosttest.Site{
		Network: flag.Arg(0), Forbidden: flag.Arg(1), Pods: [2]string{flag.Arg(2), flag.Arg(3)},
	})
}

// receive awaits something.
func receive[T any](ctx context.Context, t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-ctx.Done():
		require.NoError(t, ctx.Err(), "await %s", what)
	}
	return v
}
