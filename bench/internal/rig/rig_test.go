package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

const limit = 10 * time.Minute

// newRig returns a rig, and skips the test where there can be none.
func newRig(t *testing.T, o Options) (context.Context, *Rig) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("boots guests")
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	o.Image.Programs = append(o.Image.Programs, "/usr/sbin/nft")
	o.Progress = func(what string) { t.Log(what) }
	r, err := New(ctx, o)
	if errors.Is(err, vmlab.ErrMissing) {
		skip("%v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.Close()) })
	return ctx, r
}

func TestIntegrationHost(t *testing.T) {
	ctx, r := newRig(t, Options{})
	testTopologies(ctx, t, r)
}

func TestIntegrationPair(t *testing.T) {
	ctx, r := newRig(t, Options{Pair: true})
	testTopologies(ctx, t, r)
}

// passing is what may differ: what the kernel tells of a link a second late, and its
// number, for the guests' own NICs are plugged anew.
var passing = regexp.MustCompile(`<[A-Z_,-]*>|state [A-Z]+|linkdown |(?m:^\d+: )`)

// state is what a topology might leave behind: in each guest and on each hypervisor.
func state(ctx context.Context, t *testing.T, r *Rig) string {
	t.Helper()
	look := []string{"ip -o link", "ip -4 -o addr", "ip -4 route", "grep . /proc/sys/net/ipv4/conf/*/forwarding"}
	var all strings.Builder
	for _, n := range r.nodes {
		for _, cmd := range append(look, "find /run/netns -mindepth 1 || true", "nft list ruleset") {
			lookAt(ctx, t, n.place(""), cmd, &all)
		}
		for _, cmd := range look { // brfuse's table stays, and /run/netns is the machine's
			lookAt(ctx, t, n.hostPlace(), cmd, &all)
		}
	}
	return all.String()
}

func lookAt(ctx context.Context, t *testing.T, p *Place, cmd string, out *strings.Builder) {
	t.Helper()
	res, err := p.Run(ctx, "sh", "-c", cmd)
	require.NoError(t, err)
	require.NoError(t, res.Err(), cmd)
	fmt.Fprintf(out, "%s: %s\n%s", p.Name, cmd, passing.ReplaceAllString(res.Stdout, ""))
}

// testTopologies has each topology up, with its load, and looks at what it leaves.
func testTopologies(ctx context.Context, t *testing.T, r *Rig) {
	t.Helper()
	before := state(ctx, t, r)
	for _, topology := range r.Topologies() {
		t.Run(topology, func(t *testing.T) {
			began := time.Now()
			s, err := r.Up(ctx, topology)
			require.NoError(t, err)
			t.Logf("up after %s", time.Since(began))
			_, err = r.Up(ctx, topology)
			require.ErrorContains(t, err, topology+" is up")
			testLoad(ctx, t, r, s)
			began = time.Now()
			require.NoError(t, s.Down(ctx))
			t.Logf("down after %s", time.Since(began))
			assert.Equal(t, before, state(ctx, t, r))
		})
	}
}

// testLoad has a server and clients in their places.
func testLoad(ctx context.Context, t *testing.T, r *Rig, s *Setup) {
	t.Helper()
	addr := netip.AddrPortFrom(s.Addr, Ports[0])
	server, err := s.Server.Start(ctx, s.Server.Tool("load", "serve", "--port", "6000", "--everywhere")...)
	require.NoError(t, err)
	_, err = s.Client.RunTool(ctx, "await", "--open", "--to", addr.String())
	require.NoError(t, err, "%s", server.Log())
	for _, spec := range []netload.Spec{
		{Kind: netload.TCPRR, Size: 1024, Duration: 200 * time.Millisecond},
		{Kind: netload.TCPStream, Size: 16384, Duration: 200 * time.Millisecond, Reverse: true},
		{Kind: netload.UDPStream, Size: 64, Duration: 200 * time.Millisecond, Reverse: true},
	} {
		began := time.Now()
		raw, err := json.Marshal(spec)
		require.NoError(t, err)
		args := []string{"load", "run", "--to", addr.String(), "--spec", string(raw)}
		var measured []time.Time
		now := func() { measured = append(measured, time.Now()) }
		tell, err := r.Listen(ctx, func() func() { now(); return now })
		require.NoError(t, err)
		if s.Client.Guest() != nil {
			args = append(args, "--tell", tell.Addr().String())
		}
		out, err := s.Client.RunTool(ctx, args...)
		require.NoError(t, err, "%s", server.Log())
		require.NoError(t, tell.Close())
		if s.Client.Guest() != nil {
			require.Len(t, measured, 2)
			assert.GreaterOrEqual(t, measured[1].Sub(measured[0]), spec.Duration)
		}
		var res netload.Result
		require.NoError(t, json.Unmarshal([]byte(out), &res))
		assert.Positive(t, res.Received)
		assert.Less(t, res.Loss(), 0.9)
		var seen netcost.Cost
		require.NoError(t, json.Unmarshal(res.Remote, &seen))
		assert.Positive(t, seen.CPU.Busy(), "the server's guest did nothing: %s", res.Remote)
		t.Logf("%s/%d: %.0f msg/s, %s; all of it took %s", spec.Kind, spec.Size, res.MessagesPerSecond(), res.Percentile(50), time.Since(began))
	}
	assert.Contains(t, server.Log(), `"ready"`)
	require.NoError(t, server.Stop(ctx))
	require.ErrorContains(t, server.Stop(ctx), "it had ended", "once is enough")
}
