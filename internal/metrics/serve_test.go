package metrics_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/metrics"
	"github.com/brfuse/brfuse/vnic"
)

func TestServe(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "run", "m.sock")} {
		t.Run(addr, func(t *testing.T) {
			l, err := metrics.Listen(t.Context(), addr)
			require.NoError(t, err)
			where, local := strings.CutPrefix(addr, "unix:")
			if !local {
				where = l.Addr().String()
			}
			m := metrics.New("v1.2.3")
			t.Cleanup(m.Close)
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- m.Serve(ctx, l, slog.New(slog.DiscardHandler)) }()
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, l.Addr().Network(), where)
			}}}
			t.Cleanup(client.CloseIdleConnections)
			ask := func(method, path string) (int, string) {
				req, err := http.NewRequestWithContext(t.Context(), method, "http://brfused"+path, nil)
				require.NoError(t, err)
				res, err := client.Do(req)
				require.NoError(t, err)
				defer func() { assert.NoError(t, res.Body.Close()) }()
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				return res.StatusCode, string(body)
			}
			code, body := ask(http.MethodGet, "/metrics")
			assert.Equal(t, http.StatusOK, code)
			for _, want := range []string{`brfuse_build_info{version="v1.2.3"} 1`, "go_goroutines ", "process_open_fds "} {
				assert.Contains(t, body, want)
			}
			code, body = ask(http.MethodGet, "/healthz")
			assert.Equal(t, http.StatusOK, code)
			assert.Equal(t, "ok\n", body)
			code, _ = ask(http.MethodPost, "/metrics")
			assert.Equal(t, http.StatusMethodNotAllowed, code)
			code, _ = ask(http.MethodGet, "/debug/pprof/")
			assert.Equal(t, http.StatusNotFound, code)
			stop()
			require.NoError(t, <-served)
		})
	}
}

func TestListenTwice(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "m.sock")
	l, err := metrics.Listen(t.Context(), addr)
	require.NoError(t, err)
	_, err = metrics.Listen(t.Context(), addr)
	require.ErrorIs(t, err, vnic.ErrInUse)
	require.NoError(t, l.Close())
	_, err = metrics.Listen(t.Context(), "127.0.0.1")
	require.ErrorContains(t, err, "serve metrics")
}
