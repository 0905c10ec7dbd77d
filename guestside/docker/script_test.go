package docker_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/docker"
	"github.com/brfuse/brfuse/vnic"
)

var update = flag.Bool("update", false, "write the scripts' outcome into testdata/scripts")

// TestScripts plays what dockerd does, in the order in which it does it, and
// compares what it is answered, and what host, guest and driver have then, with
// testdata/scripts. Lines there that begin with '>' are commands, see [world.do];
// others up to the next are the outcome.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			dir := t.TempDir()
			raw, err := os.ReadFile(f)
			require.NoError(t, err)
			synctest.Test(t, func(t *testing.T) {
				got := newWorld(t, dir).play(string(raw))
				if *update {
					require.NoError(t, os.WriteFile(f, []byte(got), 0o600))
				}
				assert.Equal(t, string(raw), got)
			})
		})
	}
}

// world is a VM with dockerd, driver and a host.
type world struct {
	*testing.T
	dir     string
	host    *host
	guest   *guest
	dockerd *dockerd
	out     *strings.Builder
	driver  *docker.Driver
	pipes   *pipes
	stop    func() error
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	g := newGuest()
	blue := vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	green := vnic.Network{Name: "green", Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("fd00:2::/64")}}
	w := &world{
		T: t, dir: dir, guest: g, host: newHost(g, blue, green), out: new(strings.Builder),
		stop: func() error { return nil },
	}
	w.dockerd = newDockerd(t, g, w.out, func(ctx context.Context, _, _ string) (net.Conn, error) { return w.pipes.dial(ctx) })
	w.pipes = newPipes()
	require.NoError(t, w.pipes.Close())
	return w
}

// play executes a script and returns it with what came of it.
func (w *world) play(script string) string {
	for line := range strings.Lines(script) {
		switch command, ok := strings.CutPrefix(line, "> "); {
		case ok:
			w.out.WriteString(line)
			w.do(strings.Fields(command))
			synctest.Wait()
		case line == "\n" || strings.HasPrefix(line, "#"):
			w.out.WriteString(line)
		}
	}
	require.NoError(w, w.stop())
	w.dockerd.http.CloseIdleConnections()
	return w.out.String()
}

// do executes a command:
//
//	driver start [NETWORK] | driver stop | driver lost | driver broken   "lost" and "broken" is its file
//	dockerd start | dockerd dead       "dead" with all containers that run
//	create NET brfuse|default|null [SUBNET GATEWAY]... [aux=ADDR] [internal] [OPTION=VALUE]...
//	rm NET
//	run C NET [ip=A] [ip6=A] [mac=M] [ports=JSON] [options=JSON]
//	stop C | dead C | disconnect C NET     "dead": dockerd finds it so
//	die C                              its namespace, and nobody tells
//	call METHOD JSON
//	host away | host back | host hangs | host fails METHOD CODE
//	foreign PORT/PROTOCOL | foreign ADDR    somebody else has it
//	host drops C                       what it had for a container
//	wait DURATION
//	show
func (w *world) do(f []string) {
	switch f[0] {
	case "driver":
		w.doDriver(f[1:])
	case "dockerd":
		if f[1] == "start" {
			w.dockerd.start()
		} else {
			for _, c := range slices.Sorted(maps.Keys(w.dockerd.containers)) {
				w.guest.die(c)
			}
			clear(w.dockerd.containers)
		}
	case "create":
		w.dockerd.create(parseNetwork(f[1:]))
	case "rm":
		w.dockerd.remove(f[1])
	case "run":
		n := w.dockerd.networks[f[2]]
		require.NotNil(w, n, f[2])
		o := pairs(f[3:])
		began := time.Now()
		w.dockerd.connect(f[1], &dockerEndpoint{Network: n, Address: o["ip"], Address6: o["ip6"], MAC: o["mac"], Ports: o["ports"], Options: o["options"]})
		w.took(began)
	case "stop", "dead":
		began := time.Now()
		w.dockerd.stop(f[1], f[0] == "stop")
		w.took(began)
	case "disconnect":
		w.dockerd.disconnect(f[1], f[2])
	case "die":
		w.guest.die(f[1])
	case "call":
		w.dockerd.send(f[1], strings.Join(f[2:], " "))
	case "host", "foreign":
		w.doHost(f)
	case "wait":
		d, err := time.ParseDuration(f[1])
		require.NoError(w, err)
		<-time.After(d)
	case "show":
		w.out.WriteString(w.host.text() + w.guest.String() + w.state())
	default:
		require.Fail(w, "unknown command", f[0])
	}
}

// took writes down how long dockerd waited, when it did.
func (w *world) took(began time.Time) {
	if d := time.Since(began); d > 0 {
		fmt.Fprintf(w.out, "took %s\n", d)
	}
}

func (w *world) doDriver(f []string) {
	switch f[0] {
	case "start":
		d, err := docker.New(docker.Config{
			Host: w.host, Agent: w.guest, StateDir: w.dir, Network: strings.Join(f[1:], ""),
		})
		require.NoError(w, err)
		w.driver, w.pipes = d, newPipes()
		w.guest.onBack = d.HandedBack
		ctx, cancel := context.WithCancel(w.Context())
		served := make(chan error, 1)
		go func() { served <- docker.ServeOn(ctx, d, w.pipes) }()
		w.stop = func() error {
			cancel()
			w.stop = func() error { return nil }
			w.guest.onBack = func(vnic.ID, vnic.MAC) {}
			if err := <-served; !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	case "stop":
		require.NoError(w, w.stop())
	case "lost":
		require.NoError(w, os.Remove(filepath.Join(w.dir, "docker.json")))
	case "broken":
		require.NoError(w, os.WriteFile(filepath.Join(w.dir, "docker.json"), []byte(`{"version":1,"networks":{"n`), 0o600))
	}
}

func (w *world) doHost(f []string) {
	switch {
	case f[0] == "foreign":
		req := vnic.Request{Network: "blue"}
		if addr, err := netip.ParseAddr(f[1]); err == nil {
			req.Addresses = []netip.Addr{addr}
		} else {
			var m vnic.PortMapping
			_, err := fmt.Sscanf(f[1], "%d/%s", &m.HostPort, &m.Protocol)
			require.NoError(w, err)
			m.Port = 1
			req.Addresses, req.Ports = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(240 + m.HostPort%10)})}, []vnic.PortMapping{m}
		}
		w.host.other(w.T, req)
	case f[1] == "fails":
		w.host.Fail(f[2], fmt.Errorf("told to fail: %w", vnic.ErrorOf(vnic.Code(f[3]))), 1)
	case f[1] == "drops":
		for _, e := range w.dockerd.containers[f[2]].endpoints {
			require.NoError(w, w.host.Detach(w.Context(), e.ID, "eth0"))
		}
		w.host.SetAway(false)
	case f[1] == "hangs":
		w.host.hang(true)
	default:
		w.host.hang(false)
		w.host.SetAway(f[1] == "away")
	}
}

// state returns what the driver's file has, a line each.
func (w *world) state() string {
	return docker.StateText(filepath.Join(w.dir, "docker.json"))
}

func pairs(f []string) map[string]string {
	m := map[string]string{}
	for _, s := range f {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

func parseNetwork(f []string) *dockerNetwork {
	n := &dockerNetwork{ID: f[0] + "-id", Name: f[0], Driver: f[1], Options: map[string]string{}}
	for i := 2; i < len(f); i++ {
		k, v, isOption := strings.Cut(f[i], "=")
		switch {
		case f[i] == "internal":
			n.Internal = true
		case k == "aux":
			n.Pools[0].Aux = map[string]string{"router": v}
		case isOption:
			n.Options[k] = v
		case n.Driver == "brfuse": // "v4" or "v6", or a subnet
			p := dockerPool{Subnet: f[i], V6: f[i] == "v6" || strings.Contains(f[i], ":")}
			if !strings.Contains(f[i], "/") {
				p.Subnet = ""
			}
			n.Pools = append(n.Pools, p)
		default:
			n.Pools = append(n.Pools, dockerPool{Subnet: f[i], Gateway: f[i+1], V6: strings.Contains(f[i], ":")})
			i++
		}
	}
	switch {
	case n.Driver == "null":
		n.Pools = []dockerPool{{Subnet: "0.0.0.0/0"}}
	case n.Driver == "brfuse" && len(n.Pools) == 0:
		n.Pools = []dockerPool{{}}
	}
	return n
}

// pipes is a listener whose connections are in memory, so that time can stand
// still in a bubble of package synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }
