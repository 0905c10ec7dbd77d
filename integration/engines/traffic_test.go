package engines

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// dial connects from the hypervisor's namespace, once the other side is up.
func (f fixture) dial(ctx context.Context, t *testing.T, network, addr string) net.Conn {
	t.Helper()
	var conn net.Conn
	require.NoError(t, site.Until(ctx, "a connection to "+addr, func(ctx context.Context) (bool, error) {
		err := f.Net.NS().Do(func() (err error) {
			conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
			return err
		})
		return err == nil, err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

// serve starts a server in a pod of the guest; it ends with the test.
func (f fixture) serve(ctx context.Context, t *testing.T, pod string, argv ...string) {
	t.Helper()
	p, err := f.Start(ctx, vmlab.Command{Argv: argv, Netns: pod})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Kill(context.WithoutCancel(ctx))) })
}

// udpEcho is where guests have the program of that name.
const udpEcho = "/sbin/udpecho"

// trafficLimit bounds each of the tests below.
const trafficLimit = 2 * time.Minute

// testPublished reaches a pod by ports of the hypervisor: TCP and UDP, by
// addresses of both families, and from another pod.
func testPublished(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, trafficLimit)
	defer cancel()
	r := newRuntime(t, f)
	list := confList(t)
	other := r.pod(ctx, t, "client", nil)
	_, err := r.AddNetworkList(ctx, list, other)
	require.NoError(t, err)
	web := r.pod(ctx, t, "server", ports(
		map[string]any{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"},
		map[string]any{"hostPort": 18053, "containerPort": 53, "protocol": "udp"},
	))
	_, err = r.AddNetworkList(ctx, list, web)
	require.NoError(t, err)
	f.serve(ctx, t, "server", "busybox", "httpd", "-f", "-p", "[::]:80", "-h", "/etc")
	f.serve(ctx, t, "server", udpEcho, "53")
	for _, host := range []string{blue4 + "1", "[" + blue6 + "1]"} {
		f.fetch(ctx, t, "http://"+host+":18080/passwd")
		f.echoes(ctx, t, host+":18053")
		f.getFrom(ctx, t, "client", strings.Trim(host, "[]"), "18080")
	}
	for _, rt := range [...]*libcni.RuntimeConf{web, other} {
		require.NoError(t, r.DelNetworkList(ctx, list, rt))
	}
	f.nothingLeft(ctx, t)
}

// getFrom gets a page from a pod of the guest. Busybox's own client of HTTP
// crashes where names can't be looked up.
func (f fixture) getFrom(ctx context.Context, t *testing.T, pod, host, port string) {
	t.Helper()
	res, err := f.RunIn(ctx, pod, "sh", "-c", `printf 'GET /passwd HTTP/1.0\r\n\r\n' | busybox nc -w 10 `+host+" "+port)
	require.NoError(t, err)
	require.NoError(t, res.Err())
	assert.Contains(t, res.Stdout, "root:x:0:0")
}

// echoes checks that an address returns a datagram.
func (f fixture) echoes(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	conn := f.dial(ctx, t, "udp", addr)
	const text = "hello"
	require.NoError(t, site.Until(ctx, "an echo of "+addr, func(context.Context) (bool, error) {
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return false, err
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return false, err
		}
		b := make([]byte, 64)
		n, err := conn.Read(b)
		return string(b[:n]) == text, err
	}))
}

// What is sent, and the limit of it in bits per second: two seconds' worth, and a
// fifth of what an emulated guest brings about at least without a limit.
const (
	volume = 1_500_000
	rate   = 6e6
)

// testBandwidth compares what goes through with the limits, each way.
func testBandwidth(ctx context.Context, t *testing.T, f fixture) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, trafficLimit)
	defer cancel()
	r := newRuntime(t, f)
	list := confList(t)
	type span struct{ low, top float64 }
	for _, tt := range []struct {
		name    string
		limits  map[string]any
		in, out span // of the rate
	}{
		// From the pod, what is beyond the limit is dropped, which TCP takes amiss; and
		// after a pause of the sender a second's worth gets through at once.
		{"limited", map[string]any{"bandwidth": map[string]any{
			"ingressRate": rate, "ingressBurst": rate / 5, "egressRate": rate, "egressBurst": rate / 5,
		}}, span{0.5, 1.5}, span{0.25, 2.1}},
		// Without limits it has to be more, or the test would show nothing.
		{"free", nil, span{2.5, 1e9}, span{2.5, 1e9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt := r.pod(ctx, t, "limited", tt.limits)
			_, err := r.AddNetworkList(ctx, list, rt)
			require.NoError(t, err)
			addr := f.one(ctx, t).Addr(false)
			f.serve(ctx, t, "limited", "busybox", "nc", "-ll", "-p", "9000", "-e", "busybox", "wc", "-c")
			f.serve(ctx, t, "limited", "busybox", "nc", "-ll", "-p", "9001", "-e", "busybox", "head", "-c", strconv.Itoa(volume), "/dev/zero")
			in := f.upload(ctx, t, addr+":9000") / rate
			f.download(ctx, t, addr+":9001") // what the kernel lets through at first, which is a second's worth
			out := f.download(ctx, t, addr+":9001") / rate
			t.Logf("of %.0f Mbit/s: to the pod %.2f, from the pod %.2f", rate/1e6, in, out)
			assert.Greater(t, in, tt.in.low, "to the pod")
			assert.Less(t, in, tt.in.top, "to the pod")
			assert.Greater(t, out, tt.out.low, "from the pod")
			assert.Less(t, out, tt.out.top, "from the pod")
			require.NoError(t, r.DelNetworkList(ctx, list, rt))
			f.nothingLeft(ctx, t)
		})
	}
}

// upload returns how many bits per second a server takes that counts them.
func (f fixture) upload(ctx context.Context, t *testing.T, addr string) float64 {
	t.Helper()
	conn := f.dial(ctx, t, "tcp", addr)
	began := time.Now()
	_, err := conn.Write(make([]byte, volume))
	require.NoError(t, err)
	tcp, ok := conn.(*net.TCPConn)
	require.True(t, ok)
	require.NoError(t, tcp.CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(volume)+"\n", string(answer), "all has arrived")
	return volume * 8 / time.Since(began).Seconds()
}

// download returns how many bits per second a server sends.
func (f fixture) download(ctx context.Context, t *testing.T, addr string) float64 {
	t.Helper()
	conn := f.dial(ctx, t, "tcp", addr)
	began := time.Now()
	n, err := io.Copy(io.Discard, conn)
	require.NoError(t, err)
	require.EqualValues(t, volume, n)
	return volume * 8 / time.Since(began).Seconds()
}
