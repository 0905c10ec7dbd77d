package netload

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// peer speaks the control protocol by hand.
type peer struct {
	t testing.TB
	*line
}

func call(tb testing.TB, s *Server) peer {
	tb.Helper()
	sa, family := sockaddr(s.Addr())
	fd, err := newSocket(family, unix.SOCK_STREAM, timeout(5*time.Second))
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, unix.Close(fd)) })
	require.NoError(tb, connect(fd, sa))
	b := make([]byte, headerLen)
	header{role: roleControl}.put(b)
	require.NoError(tb, writeAll(fd, b))
	return peer{tb, newLine(fd, maxReply)}
}

func (p peer) ask(line string) reply {
	p.t.Helper()
	require.NoError(p.t, writeAll(p.fd, []byte(line+"\n")))
	b, err := p.next(5 * time.Second)
	require.NoError(p.t, err)
	var r reply
	require.NoError(p.t, json.Unmarshal(b, &r))
	return r
}

func (p peer) open(spec string) runID {
	p.t.Helper()
	r := p.ask(`{"op":"open","version":1,"spec":` + spec + `}`)
	require.Empty(p.t, r.Error)
	require.NotZero(p.t, r.Run)
	return r.Run
}

// gone checks that the server has hung up.
func (p peer) gone() {
	p.t.Helper()
	_, err := p.next(5 * time.Second)
	assert.ErrorContains(p.t, err, "EOF")
}

func datagramSocket(t *testing.T, s *Server, from string) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(s.Addr()))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func sendDatagram(t *testing.T, c *net.UDPConn, d datagram, size int) {
	t.Helper()
	b := make([]byte, size)
	d.put(b)
	_, err := c.Write(b)
	require.NoError(t, err)
}

func TestWrongSteps(t *testing.T) {
	s := listen(t, Options{})
	const open = `{"op":"open","version":1,"spec":{"kind":"tcp_rr","size":64}}`
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"no JSON":         {[]string{"hello"}, "invalid request"},
		"begin first":     {[]string{`{"op":"begin","phase":1}`}, "begin before or after open"},
		"open twice":      {[]string{open, open}, "open before or after open"},
		"go before begin": {[]string{open, `{"op":"go"}`}, "go before begin"},
		"without flows":   {[]string{open, `{"op":"begin","phase":1}`}, "begin without flows [0]"},
		"bad spec":        {[]string{`{"op":"open","version":1,"spec":{"kind":"tcp_rr"}}`}, "size 0"},
		"long":            {[]string{`{"op":"open","version":1,"spec":{"kind":"tcp_rr","size":1,"duration":301000000000}}`}, "not more than 5m0s"},
		"wrong drain": {[]string{
			strings.Replace(open, "tcp_rr", "tcp_crr", 1), `{"op":"begin","phase":1}`, `{"op":"drain","sent":[1]}`,
		}, "drain of 1 flows, of 0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := call(t, s)
			var r reply
			for _, line := range c.lines {
				require.Empty(t, r.Error)
				r = p.ask(line)
			}
			assert.Contains(t, r.Error, c.want)
			p.gone()
		})
	}
	assertNoRuns(t, s)
}

func assertNoRuns(t *testing.T, s *Server) {
	t.Helper()
	assert.Eventually(t, func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(s.runs) == 0
	}, 5*time.Second, time.Millisecond)
}

func TestLongLine(t *testing.T) {
	s := listen(t, Options{})
	p := call(t, s)
	_ = writeAll(p.fd, []byte(strings.Repeat("x", maxRequest+1))) // the server may hang up meanwhile
	_, err := p.next(5 * time.Second)
	assert.Error(t, err)
}

func TestRunsAtOnce(t *testing.T) {
	s := listen(t, Options{})
	first := call(t, s)
	first.open(`{"kind":"tcp_rr","size":64}`)
	for range maxRuns - 1 {
		call(t, s).open(`{"kind":"tcp_rr","size":64}`)
	}
	r := call(t, s).ask(`{"op":"open","version":1,"spec":{"kind":"tcp_rr","size":64}}`)
	assert.Contains(t, r.Error, "4 runs are going on already")
	first.ask(`{"op":"close"}`)
	first.gone()
	call(t, s).open(`{"kind":"tcp_rr","size":64}`)
}

func TestStrangers(t *testing.T) {
	s := listen(t, Options{})
	run := call(t, s).open(`{"kind":"tcp_stream","size":64}`)
	for name, h := range map[string]header{
		"flow of no run":        {role: roleData, run: run + 1},
		"flow that is not":      {role: roleData, flow: 1, run: run},
		"connection of no run":  {role: roleCRR, run: run + 1},
		"connection of another": {role: roleCRR, run: run},
	} {
		c, err := net.Dial("tcp", s.Addr().String()) //nolint:noctx // loopback
		require.NoError(t, err)
		b := make([]byte, headerLen)
		h.put(b)
		_, err = c.Write(b)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		_, err = c.Read(b)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, unix.EAGAIN, name)
		assert.NotContains(t, err.Error(), "timeout", name)
		require.NoError(t, c.Close())
	}
	_, err := Run(t.Context(), s.Addr(), Spec{Kind: TCPRR, Size: 64, Count: 10}, RunOptions{})
	assert.NoError(t, err)
}

func TestSlowConnection(t *testing.T) {
	s := listen(t, Options{})
	p := call(t, s)
	run := p.open(`{"kind":"tcp_crr","size":32}`)
	require.Empty(t, p.ask(`{"op":"begin","phase":1}`).Error)
	b := make([]byte, 33)
	header{role: roleCRR, run: run}.put(b)
	for _, parts := range [][]int{{8, 16, 32}, {16, 32}, {20, 32}, {32}} {
		c, err := net.Dial("tcp", s.Addr().String()) //nolint:noctx // loopback
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		for i, end := range parts {
			begin := 0
			if i > 0 {
				begin = parts[i-1]
			}
			_, err := c.Write(b[begin:end])
			require.NoError(t, err)
			assert.Empty(t, p.ask(`{"op":"ready"}`).Missing) // lets the server see this part
		}
		n, err := c.Read(make([]byte, 33))
		require.NoError(t, err)
		assert.Equal(t, 32, n)
		require.NoError(t, c.Close())
	}
}

func TestForgedGreeting(t *testing.T) {
	s := listen(t, Options{})
	p := call(t, s)
	run := p.open(`{"kind":"udp_stream","size":64,"reverse":true}`)
	sendDatagram(t, datagramSocket(t, s, "127.0.0.2:0"), datagram{run: run}, datagramLen)
	assert.Equal(t, []int{0}, p.ask(`{"op":"ready"}`).Missing, "not from where the control connection comes from")
	own := datagramSocket(t, s, "127.0.0.1:0")
	sendDatagram(t, own, datagram{run: run + 1}, datagramLen)
	sendDatagram(t, own, datagram{run: run, seq: 1}, datagramLen)
	sendDatagram(t, own, datagram{run: run, phase: 1}, datagramLen)
	assert.Equal(t, []int{0}, p.ask(`{"op":"ready"}`).Missing)
	sendDatagram(t, own, datagram{run: run}, datagramLen)
	assert.Empty(t, p.ask(`{"op":"ready"}`).Missing)
}

func TestCountedDatagrams(t *testing.T) {
	s := listen(t, Options{})
	p := call(t, s)
	run := p.open(`{"kind":"udp_stream","size":64}`)
	c := datagramSocket(t, s, "127.0.0.1:0")
	sendDatagram(t, c, datagram{run: run}, datagramLen)
	require.Empty(t, p.ask(`{"op":"ready"}`).Missing)
	require.Empty(t, p.ask(`{"op":"begin","phase":2,"measured":true}`).Error)
	require.Empty(t, p.ask(`{"op":"go"}`).Error)
	for _, d := range []struct {
		datagram
		size int
	}{
		{datagram{run: run, phase: 2}, 64},
		{datagram{run: run, phase: 1}, 64},     // of another phase
		{datagram{run: run + 1, phase: 2}, 64}, // of another run
		{datagram{run: run, phase: 2}, 65},     // of another size
		{datagram{run: run}, 64},               // a greeting
		{datagram{run: run, phase: 2, seq: 1}, 64},
	} {
		sendDatagram(t, c, d.datagram, d.size)
	}
	_, err := c.Write(nil) // no end
	require.NoError(t, err)
	sendDatagram(t, c, datagram{run: run, phase: 2, seq: 2}, 64)
	r := p.ask(`{"op":"drain","sent":[6]}`)
	assert.Empty(t, r.Error)
	assert.Equal(t, uint64(3), r.Received)
}
