package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// Sizes of headers in bytes.
const (
	header4, header6 = 20, 40
	headerICMP       = 8
	headerTCP        = 20 + 12 // with the time stamps' option

	// overhead is what the tunnel adds over IPv4: the inner Ethernet header, VXLAN, UDP
	// and IPv4 (RFC 7348, section 5).
	overhead = 14 + 8 + 8 + header4
)

// TestIntegrationClusterOverlay shows that pods on different hypervisors are in one
// segment, whose packets cross the underlay encapsulated once, and to where they
// belong alone.
func TestIntegrationClusterOverlay(t *testing.T) {
	ctx, r := open(t)
	oneSegment(ctx, t, r, underlayMTU-overhead)
}

// TestIntegrationClusterOverlayOverIPv6 moves the hypervisors to the underlay's IPv6
// addresses, which leave less room.
func TestIntegrationClusterOverlayOverIPv6(t *testing.T) {
	ctx, r := open(t)
	move := func(ctx context.Context, to func(*hyper) netip.Addr) error {
		var err error
		for _, h := range r.all() {
			err = errors.Join(err, h.stop(ctx))
			h.setUnderlay(to(h))
		}
		for _, h := range r.all() {
			err = errors.Join(err, h.start(ctx))
		}
		return err
	}
	undo(ctx, t, func(ctx context.Context) error { return move(ctx, func(h *hyper) netip.Addr { return h.v4 }) })
	require.NoError(t, move(ctx, func(h *hyper) netip.Addr { return h.v6 }))
	oneSegment(ctx, t, r, underlayMTU-overhead-header6+header4)
}

// oneSegment has two pods talk, and looks at what crosses the underlay.
func oneSegment(ctx context.Context, t *testing.T, r *rig, mtu int) {
	t.Helper()
	createBlue(ctx, t, r.a)
	captures := map[*hyper]*capture{}
	for _, h := range r.all() {
		captures[h] = h.watch(t, blue4, blue6)
	}
	web, db := attach(ctx, t, r.a, "web"), attach(ctx, t, r.b, "db")
	startEcho(ctx, t, r.a, "web")
	startEcho(ctx, t, r.b, "db")
	for _, v6 := range []bool{false, true} {
		t.Run("ping "+family(v6), func(t *testing.T) {
			pingFull(ctx, t, r.a, "web", db, v6, mtu)
			pingFull(ctx, t, r.b, "db", web, v6, mtu)
		})
		t.Run("tcp "+family(v6), func(t *testing.T) {
			streamFull(ctx, t, r.a, "web", db, v6, mtu)
			streamFull(ctx, t, r.b, "db", web, v6, mtu)
		})
	}
	for _, v6 := range []bool{false, true} {
		t.Run("from the hypervisor "+family(v6), func(t *testing.T) {
			dialPod(ctx, t, r.b, web, v6)
			dialPod(ctx, t, r.a, db, v6)
		})
	}
	t.Run("unknown stations", func(t *testing.T) { askNobody(ctx, t, r.a, "web") })
	for h, c := range captures {
		checkKinds(t, h, c.stop(t), h != r.c)
	}
}

// checkKinds looks at the frames that a hypervisor exchanged with the underlay: those
// of the tunnel are for single stations, and where no pod is there are none.
func checkKinds(t *testing.T, h *hyper, kinds map[string]int, pods bool) {
	t.Helper()
	t.Logf("%s: %v", h.name, kinds)
	assert.Positive(t, kinds["underlay's own"], "%s: the capture works", h.name)
	if pods {
		assert.Positive(t, kinds["vxlan ip unicast"], h.name)
	}
	for kind, n := range kinds {
		tunnelled := strings.HasPrefix(kind, "vxlan ") && strings.HasSuffix(kind, " unicast")
		if kind == "underlay's own" || pods && tunnelled {
			continue
		}
		assert.Zero(t, n, "%s: %s", h.name, kind)
	}
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

// pingFull pings a pod with the largest packets, which may not be split.
func pingFull(ctx context.Context, t *testing.T, h *hyper, pod string, to site.Attachment, v6 bool, mtu int) {
	t.Helper()
	size := mtu - headerICMP - header4
	if v6 {
		size = mtu - headerICMP - header6
	}
	ping := func(size int) (string, error) {
		res, err := h.vm.RunIn(ctx, pod, "/usr/bin/ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", strconv.Itoa(size), to.Addr(v6))
		require.NoError(t, err)
		return res.Stdout + res.Stderr, res.Err()
	}
	_, err := ping(size)
	require.NoError(t, err)
	out, err := ping(size + 1)
	require.Error(t, err, "larger than the mtu")
	assert.Contains(t, strings.ToLower(out), "too long", "the pod knows the mtu")
}

// streamFull sends to a pod and back, with the largest segments.
func streamFull(ctx context.Context, t *testing.T, h *hyper, pod string, to site.Attachment, v6 bool, mtu int) {
	t.Helper()
	out := inPod(ctx, t, h, pod, podtool, "stream", net.JoinHostPort(to.Addr(v6), echoPort), strconv.Itoa(4<<20))
	want := mtu - headerTCP - header4
	if v6 {
		want = mtu - headerTCP - header6
	}
	assert.Equal(t, fmt.Sprintln(want), out, "size of the segments")
}

// dialPod has a hypervisor itself reach a pod elsewhere: from the address that it has
// alone, for the gateway's, which the pod's hypervisor has as well, gets no answers.
func dialPod(ctx context.Context, t *testing.T, h *hyper, to site.Attachment, v6 bool) {
	t.Helper()
	addr := net.JoinHostPort(to.Addr(v6), echoPort)
	require.NoError(t, site.Until(ctx, h.name+"'s connection to "+addr, func(ctx context.Context) (bool, error) {
		err := h.Net.NS().Do(func() error {
			conn, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", addr)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
		return err == nil, err
	}))
}

// askNobody has a pod look for addresses that no pod has, and send to a MAC that
// nobody has, and to all.
func askNobody(ctx context.Context, t *testing.T, h *hyper, pod string) {
	t.Helper()
	inPod(ctx, t, h, pod, "ip", "neigh", "replace", "10.231.0.251", "lladdr", "02:00:5e:00:53:fb", "dev", "eth0", "nud", "permanent")
	for _, to := range []string{"10.231.0.250", "fd00:231::fa:fa", "10.231.0.251", "10.231.0.255", "ff02::1%eth0"} {
		argv := []string{"/usr/bin/ping", "-n", "-c", "2", "-i", "0.2", "-W", "1"}
		if to == "10.231.0.255" {
			argv = append(argv, "-b")
		}
		_, err := h.vm.RunIn(ctx, pod, append(argv, to)...) // nobody need answer
		require.NoError(t, err)
	}
}
