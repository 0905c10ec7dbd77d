package cluster

import (
	"bufio"
	"context"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
)

// dialLimit is how long a client waits for a connection or an answer.
const dialLimit = 2 * time.Second

// TestIntegrationClusterPublished has clients at the underlay ask all hypervisors for a
// port of pods.
func TestIntegrationClusterPublished(t *testing.T) {
	ctx, r := open(t)
	createBlue(ctx, t, r.a)
	for _, h := range []*hyper{r.a, r.b} {
		attach(ctx, t, h, "web")
		start(ctx, t, h, "web", podtool, "name", "80", h.name)
	}
	publish := func(t *testing.T, protocol, mode string) {
		t.Helper()
		run(ctx, t, r.c, "publish", "--network", "blue", "--port", "8080:80/"+protocol, "--to", "web", "--mode", mode)
		t.Cleanup(func() { run(context.WithoutCancel(ctx), t, r.c, "unpublish", "8080-"+protocol) })
	}
	both := []string{r.a.name, r.b.name}
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run("ingress "+protocol, func(t *testing.T) {
			publish(t, protocol, "ingress")
			for _, h := range r.all() {
				for _, addr := range []netip.Addr{h.v4, h.v6} {
					r.awaitAnswers(ctx, t, protocol, addr, both)
				}
			}
		})
	}
	t.Run("balance", func(t *testing.T) {
		publish(t, "tcp", "ingress")
		r.awaitAnswers(ctx, t, "tcp", r.c.v4, both)
		got := map[string]int{}
		for range 4 * balanced {
			name, _, err := r.ask("tcp", r.c.v4)
			require.NoError(t, err)
			got[name]++
		}
		for _, name := range both {
			assert.InDelta(t, 2*balanced, got[name], 5*math.Sqrt(balanced), "%v: more than five standard deviations off", got)
		}
	})
	t.Run("host", func(t *testing.T) {
		publish(t, "tcp", "host")
		for _, h := range []*hyper{r.a, r.b} {
			for _, addr := range []netip.Addr{h.v4, h.v6} {
				r.awaitAnswers(ctx, t, "tcp", addr, []string{h.name})
			}
			_, from, err := r.ask("tcp", h.v4)
			require.NoError(t, err)
			assert.Equal(t, client, from, "the client's own address")
		}
		_, _, err := r.ask("tcp", r.c.v4)
		require.Error(t, err, "no pod of it is there")
	})
	t.Run("follows", func(t *testing.T) {
		publish(t, "tcp", "ingress")
		r.awaitAnswers(ctx, t, "tcp", r.c.v4, both)
		run(ctx, t, r.b, "detach", "--vm", r.b.vm.Name(), "--pod", "web")
		for _, h := range r.all() {
			r.awaitAnswers(ctx, t, "tcp", h.v4, []string{r.a.name})
		}
		run(ctx, t, r.b, "attach", "--vm", r.b.vm.Name(), "--pod", "web")
		for _, h := range r.all() {
			r.awaitAnswers(ctx, t, "tcp", h.v4, both)
		}
	})
}

// balanced is a quarter of how often a port is asked to see how it is shared: the
// variance of the answers of each of two pods.
const balanced = 50

// asked is how often a port is asked: with two pods, so often that by chance the same
// one answers always once in 2^23 times.
const asked = 24

// awaitAnswers waits until just those pods answer at a hypervisor's port.
func (r *rig) awaitAnswers(ctx context.Context, t *testing.T, protocol string, at netip.Addr, want []string) {
	t.Helper()
	var got map[string]int
	err := site.Until(ctx, "answers of "+strings.Join(want, " and ")+" from "+at.String(), func(context.Context) (bool, error) {
		got = map[string]int{}
		for range asked {
			name, _, err := r.ask(protocol, at)
			if err != nil {
				return false, err
			}
			got[name]++
		}
		for _, name := range want {
			if got[name] == 0 {
				return false, nil
			}
		}
		return len(got) == len(want), nil
	})
	require.NoError(t, err, "%v", got)
}

// ask asks a hypervisor's port, and returns which pod answers and whom it sees.
func (r *rig) ask(protocol string, at netip.Addr) (pod, from string, err error) {
	var c net.Conn
	err = r.sw.NS().Do(func() (err error) {
		d := net.Dialer{Timeout: dialLimit}
		c, err = d.Dial(protocol, netip.AddrPortFrom(at, 8080).String())
		return err
	})
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(dialLimit)); err != nil {
		return "", "", err
	}
	if protocol == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", "", err
	}
	pod, seen, _ := strings.Cut(strings.TrimSpace(line), " ")
	host, _, err := net.SplitHostPort(seen)
	return pod, strings.TrimPrefix(host, "::ffff:"), err
}
