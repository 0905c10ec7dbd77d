package docker_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/docker"
	"github.com/brfuse/brfuse/vnic"
)

// newDriver returns a driver of a host with one network, blue.
func newDriver(t *testing.T, cfg docker.Config) (*docker.Driver, *host, *guest) {
	t.Helper()
	g := newGuest()
	h := newHost(g, vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24")})
	cfg.Host, cfg.Agent = h, g
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	d, err := docker.New(cfg)
	require.NoError(t, err)
	return d, h, g
}

// serve serves a driver on its socket until the test ends, and returns the function
// that ends it before.
func serve(t *testing.T, d *docker.Driver) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx) }()
	stop = func() error {
		cancel()
		err := <-served
		served <- err
		return err
	}
	t.Cleanup(func() { assert.ErrorIs(t, stop(), context.Canceled) })
	return stop
}

// ask makes a call without a socket.
func ask(t *testing.T, d *docker.Driver, method, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+method, strings.NewReader(body))
	d.Handler().ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// TestSocket runs a container over the real socket, which is restarted in between.
func TestSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "plugins", "brfuse.sock")
	state := t.TempDir()
	d, h, g := newDriver(t, docker.Config{Socket: socket, StateDir: state})
	stop := serve(t, d)
	out := new(strings.Builder)
	docked := newDockerd(t, g, out, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialUntil(ctx, socket)
	})
	docked.start()
	docked.create(parseNetwork([]string{"web", "brfuse"}))
	require.True(t, docked.connect("c1", &dockerEndpoint{Network: docked.networks["web"]}), out.String())

	info, err := os.Stat(socket)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.ErrorIs(t, stop(), context.Canceled)
	assert.NoFileExists(t, socket)

	again, err := docker.New(docker.Config{Host: h, Agent: g, Socket: socket, StateDir: state})
	require.NoError(t, err)
	serve(t, again)
	docked.stop("c1", true)
	assert.Empty(t, h.text()+g.String())
	assert.NotContains(t, out.String(), "failed")
}

// dialUntil connects to a socket as soon as it is there.
func dialUntil(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var dialer net.Dialer
	for tick := time.NewTicker(time.Millisecond); ; {
		c, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			tick.Stop()
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func TestSocketTaken(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "brfuse.sock")
	first, _, _ := newDriver(t, docker.Config{Socket: socket})
	serve(t, first)
	c, err := dialUntil(t.Context(), socket)
	require.NoError(t, err)
	require.NoError(t, c.Close())

	second, _, _ := newDriver(t, docker.Config{Socket: socket})
	err = second.Serve(t.Context())
	require.ErrorIs(t, err, vnic.ErrInUse)
	require.ErrorContains(t, err, "another process serves it; stop that one first")
	assert.FileExists(t, socket)
}

func TestNewRefuses(t *testing.T) {
	_, err := docker.New(docker.Config{})
	require.ErrorIs(t, err, vnic.ErrInvalid)
	_, err = docker.New(docker.Config{Host: newHost(nil), Agent: newGuest(), StateDir: "/dev/null/x"})
	assert.ErrorContains(t, err, "start docker driver: make state folder: ")
}

func TestRequestLimits(t *testing.T) {
	d, _, _ := newDriver(t, docker.Config{})
	code, body := ask(t, d, "NetworkDriver.Leave", `{"x":"`+strings.Repeat("x", 2<<20)+`"}`)
	assert.Equal(t, http.StatusRequestEntityTooLarge, code)
	assert.Contains(t, body, `"Err":"NetworkDriver.Leave: read request: `)

	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/NetworkDriver.Leave", nil))
	assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
	assert.JSONEq(t, `{"Err":"NetworkDriver.Leave: use POST","Error":"NetworkDriver.Leave: use POST"}`, w.Body.String())
}
