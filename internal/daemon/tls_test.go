package daemon

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
	"github.com/brfuse/brfuse/vnic"
)

func TestOpenTLS(t *testing.T) {
	ca := tlstest.NewCA(t)
	files := ca.Files(t, "hv1", "192.0.2.1", "fd00::1")
	for _, tt := range []struct {
		name   string
		listen string
		files  tlsfiles.Files
		want   string
	}{
		{"neither", "", tlsfiles.Files{}, ""},
		{"both", "192.0.2.1:7443", files, ""},
		{"IPv6", "[fd00::1]:7443", files, ""},
		{"to call others alone", "", files, ""},
		{"TCP without TLS", "192.0.2.1:7443", tlsfiles.Files{}, "give --tls-cert, --tls-key and --tls-ca with --api-listen 192.0.2.1:7443"},
		{"no key", "192.0.2.1:7443", tlsfiles.Files{Cert: files.Cert, CA: files.CA}, "give --tls-key"},
		{"any address", "0.0.0.0:7443", files, "by which other hypervisors reach this one"},
		{"any address of IPv6", "[::]:7443", files, "by which other hypervisors reach this one"},
		{"no host", ":7443", files, "by which other hypervisors reach this one"},
		{"no port", "192.0.2.1", files, "by which other hypervisors reach this one"},
		{"any port", "192.0.2.1:0", files, "by which other hypervisors reach this one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, err := openTLS(Config{APIListen: tt.listen, TLS: tt.files, Log: slog.New(slog.DiscardHandler)})
			if tt.want == "" {
				require.NoError(t, err)
				assert.Equal(t, tt.files != tlsfiles.Files{}, src != nil)
				return
			}
			require.ErrorIs(t, err, vnic.ErrInvalid)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestOwnNames refuses, before anybody is told of this hypervisor, a certificate that
// others would refuse.
func TestOwnNames(t *testing.T) {
	cfg := Config{APIListen: "192.0.2.1:7443", TLS: tlstest.NewCA(t).Files(t, "hv1"), Log: slog.New(slog.DiscardHandler)}
	cfg.Cluster.Hypervisor = "hv2"
	_, err := openTLS(cfg)
	require.ErrorContains(t, err, "serve the API over TCP at 192.0.2.1:7443")
	require.ErrorContains(t, err, "is for hv1, not for 192.0.2.1 or hv2")
}

// listening is where a member serves a second time, as a daemon does.
func listening(t *testing.T) (at listeners, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	at, err := listenAll(t.Context(), Config{Socket: socket, APIListen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(at.close)
	at.addr = at.tcp.Addr().String()
	return at, socket
}

// TestServe: unix socket and TCP serve the same API until they are told to stop.
func TestServe(t *testing.T) {
	cl := newCluster(t, "a")
	a := cl.member("a")
	at, socket := listening(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- at.serve(ctx, a.api) }()
	_, err := cl.dial(t, vnic.Hypervisor{Name: "a", API: at.addr}).Attach(t.Context(), &brfusev1.AttachRequest{Vm: "a1", Pod: "web"})
	require.NoError(t, err)
	got, err := dialUnix(t, socket).List(t.Context(), &brfusev1.ListRequest{})
	require.NoError(t, err)
	assert.Len(t, got.GetAttachments(), 1)
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(stopLimit / 2):
		require.FailNow(t, "it still serves")
	}
	_, err = new(net.Dialer).DialContext(t.Context(), "tcp", at.addr)
	require.Error(t, err)
	assert.NoFileExists(t, socket)
}

// TestServeFails as a whole when one of the two does.
func TestServeFails(t *testing.T) {
	cl := newCluster(t, "a")
	a := cl.member("a")
	at, socket := listening(t)
	require.NoError(t, at.tcp.Close())
	require.ErrorContains(t, at.serve(t.Context(), a.api), "serve "+at.addr)
	assert.NoFileExists(t, socket)

	_, err := listenAll(t.Context(), Config{Socket: filepath.Join(t.TempDir(), "s"), APIListen: "192.0.2.1:7443"})
	require.ErrorContains(t, err, "serve the API over TCP")
}
