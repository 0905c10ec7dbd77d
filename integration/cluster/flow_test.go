package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// flow is a TCP connection from a pod to an echo server in another, over which
// numbers go to and fro for as long as it lasts.
type flow struct {
	h    *hyper
	proc *vmlab.GuestProcess
	file string
}

// advanceLimit bounds how long a flow may stand still: after a cut, TCP tries again
// after twice the time of the cut at most (RFC 6298, section 5).
const advanceLimit = 2 * time.Minute

// echoPort is that of the echo servers.
const echoPort = "7"

// startEcho starts an echo server in a pod, and waits until it answers.
func startEcho(ctx context.Context, t *testing.T, h *hyper, pod string) {
	t.Helper()
	start(ctx, t, h, pod, podtool, "echo", echoPort)
	require.NoError(t, site.Until(ctx, "the echo server of "+pod, func(ctx context.Context) (bool, error) {
		res, err := h.vm.RunIn(ctx, pod, podtool, "stream", "127.0.0.1:"+echoPort, "1")
		return err == nil && res.Code == 0, err
	}))
}

// newFlow begins one, to a pod that an echo server runs in.
func newFlow(ctx context.Context, t *testing.T, h *hyper, pod string, to site.Attachment, v6 bool) *flow {
	t.Helper()
	f := &flow{h: h, file: fmt.Sprintf("/run/flow-%s-%s-%s", pod, to.ID, family(v6))} // no flow before has had it
	f.proc = start(ctx, t, h, pod, podtool, "flow", net.JoinHostPort(to.Addr(v6), echoPort), f.file)
	f.advances(ctx, t, "at first")
	return f
}

// count returns how many numbers have come back.
func (f *flow) count(ctx context.Context) (uint64, error) {
	b, err := f.h.vm.Get(ctx, f.file)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	return strconv.ParseUint(string(b), 10, 64)
}

// advances waits until more numbers have come back, which they do over the one
// connection or not at all.
func (f *flow) advances(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, advanceLimit)
	defer cancel()
	var first uint64
	err := site.Until(ctx, "traffic "+when, func(ctx context.Context) (bool, error) {
		n, err := f.count(ctx)
		if err != nil {
			return false, err
		}
		if first == 0 {
			first = n
		}
		return first > 0 && n > first+10, nil
	})
	require.NoError(t, err)
}

// pair makes network blue with pod web on one hypervisor and db on another, each with
// an echo server, and a flow from each to the other: one over IPv4, one over IPv6.
func pair(ctx context.Context, t *testing.T, r *rig) (web, db site.Attachment, flows []*flow) {
	t.Helper()
	createBlue(ctx, t, r.a)
	web, db = attach(ctx, t, r.a, "web"), attach(ctx, t, r.b, "db")
	startEcho(ctx, t, r.a, "web")
	startEcho(ctx, t, r.b, "db")
	return web, db, []*flow{
		newFlow(ctx, t, r.a, "web", db, false),
		newFlow(ctx, t, r.b, "db", web, true),
	}
}

// allAdvance is advances of several.
func allAdvance(ctx context.Context, t *testing.T, flows []*flow, when string) {
	t.Helper()
	for _, f := range flows {
		f.advances(ctx, t, when)
	}
}

// reaches waits until a pod gets an answer from an address.
func reaches(ctx context.Context, t *testing.T, h *hyper, pod, addr string) {
	t.Helper()
	var out string
	err := site.Until(ctx, fmt.Sprintf("an answer to pod %s from %s", pod, addr), func(ctx context.Context) (bool, error) {
		res, err := h.vm.RunIn(ctx, pod, "/usr/bin/ping", "-n", "-c", "1", "-W", "1", addr)
		out = strings.TrimSpace(res.Stdout + res.Stderr)
		return err == nil && res.Code == 0, err
	})
	require.NoError(t, err, out)
}
