package cnid_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/cnid"
)

func TestSocket(t *testing.T) {
	l := newLab(t, nil)
	fi, err := os.Stat(l.socket)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	second := cnid.New(cnid.Config{Socket: l.socket, Host: l.host, Agent: l.agent})
	require.ErrorContains(t, second.Serve(t.Context()), "another process serves it")
	require.ErrorIs(t, l.stop(), errTest)
	assert.NoFileExists(t, l.socket)
}

func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	require.FileExists(t, path)
	l := newLab(t, func(c *cnid.Config) { c.Socket = path })
	assert.Nil(t, l.call(request(cniapi.Del, 1)).Error)
}

func TestSocketIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni.sock")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	err := cnid.New(cnid.Config{Socket: path}).Serve(t.Context())
	require.ErrorContains(t, err, "no socket")
	assert.FileExists(t, path)
}

func TestNonsense(t *testing.T) {
	l := newLab(t, nil)
	for _, tt := range []struct {
		name, in string
		code     uint // 0: hung up on
	}{
		{"no JSON", "GET / HTTP/1.1\r\n", 6},
		{"other version", `{"version":9,"verb":"DEL","conf":"x"}` + "\n", cniapi.CodeVersion},
		{"too long", strings.Repeat("x", cniapi.MaxMessage+8192), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := dial(t, l.socket)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(wait)))
			go func() { _, _ = io.WriteString(conn, tt.in) }() // it may be hung up on in the middle
			resp, err := cniapi.ReadResponse(bufio.NewReader(conn))
			if tt.code == 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.code, resp.Error.Code)
		})
	}
	assert.Nil(t, l.call(request(cniapi.Del, 1)).Error, "it serves on")
}

// The server takes 64 calls at once; others wait and are answered.
func TestManyCalls(t *testing.T) {
	l := newLab(t, nil)
	release := l.host.hold("attach")
	defer release()
	var conns []net.Conn
	for i := range 100 {
		conns = append(conns, l.send(request(cniapi.Add, i)))
	}
	count := func() int {
		l.host.mu.Lock()
		defer l.host.mu.Unlock()
		return len(l.host.calls)
	}
	require.Eventually(t, func() bool { return count() == 64 }, wait, time.Millisecond)
	release()
	for _, c := range conns {
		assert.Nil(t, l.receive(c).Error)
		require.NoError(t, c.Close())
	}
	assert.Equal(t, 100, count())
}

// A call that is under way when the server is to stop is answered.
func TestDrain(t *testing.T) {
	l := newLab(t, nil)
	release := l.host.hold("attach")
	defer release()
	conn := l.send(request(cniapi.Add, 1))
	defer conn.Close()
	require.Eventually(t, func() bool { return l.host.called("attach c1 eth0") }, wait, time.Millisecond)
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop() }()
	require.Eventually(t, func() bool {
		_, err := os.Stat(l.socket)
		return err != nil
	}, wait, time.Millisecond, "it stops to listen at once")
	release()
	assert.Nil(t, l.receive(conn).Error)
	require.ErrorIs(t, <-stopped, errTest)
	assert.Len(t, l.host.keys(), 1)
}

// One that takes too long is ended, and taken back.
func TestDrainEnds(t *testing.T) {
	l := newLab(t, func(c *cnid.Config) { c.Drain = 10 * time.Millisecond })
	defer l.host.hold("attach")()
	conn := l.send(request(cniapi.Add, 1))
	defer conn.Close()
	require.Eventually(t, func() bool { return l.host.called("attach c1 eth0") }, wait, time.Millisecond)
	require.ErrorIs(t, l.stop(), errTest)
	resp := l.receive(conn)
	require.NotNil(t, resp.Error)
	assert.Equal(t, uint(11), resp.Error.Code)
	assert.True(t, l.host.called("detach c1 eth0"), "it tries to")
}

// stranger is in the environment of a process that this test starts as a user
// without rights.
const stranger = "BRFUSE_TEST_STRANGER"

func TestIntegrationOnlyRootIsServed(t *testing.T) {
	if path := os.Getenv(stranger); path != "" {
		conn, err := dial(t, path)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(wait)))
		_, _ = io.WriteString(conn, `{"version":1,"verb":"DEL","conf":"x","attach":{"pod":"x","interface":"eth0"}}`+"\n")
		b, err := io.ReadAll(conn)
		t.Logf("answer %q, error %v", b, err)
		assert.Empty(t, b)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	l := newLab(t, nil)
	require.NoError(t, os.Chmod(l.socket, 0o666), "so that the stranger gets as far as to connect")
	for dir := filepath.Dir(l.socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	program := filepath.Join(filepath.Dir(l.socket), "stranger.test")
	require.NoError(t, os.WriteFile(program, self, 0o755))

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = "/", []string{stranger + "=" + l.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), `answer ""`)
	assert.False(t, l.host.called("detach x eth0"))
}
