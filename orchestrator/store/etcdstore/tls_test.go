package etcdstore_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// secured is a cluster with TLS and authentication, and how to reach it.
func secured(t *testing.T) (*etcdtest.Cluster, etcdstore.Config) {
	t.Helper()
	c := etcdtest.Start(t, etcdtest.Options{TLS: true, Password: "secret"})
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	return c, etcdstore.Config{
		Endpoints: c.Endpoints(), User: etcdtest.Root, PasswordFile: password,
		TLS:         &etcdstore.TLSFiles{CA: c.Certs.CA, Cert: c.Certs.Cert, Key: c.Certs.Key},
		DialTimeout: patience,
	}
}

// TestCertificatesAreReloaded replaces the client's certificate under an open store:
// the next connection is made with the new one, whatever it is.
func TestCertificatesAreReloaded(t *testing.T) {
	t.Parallel()
	c, cfg := secured(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.key")
	require.NoError(t, c.Certs.Issue(cert, key))
	cfg.TLS.Cert, cfg.TLS.Key = cert, key
	s := openWith(t, cfg)
	put(t, s, "a", "1")

	require.NoError(t, os.WriteFile(cert, []byte("nonsense"), 0o600))
	c.Members[0].Kill()
	require.NoError(t, c.Members[0].Start(t.Context()))
	err := s.View(deadline(t, 1500*time.Millisecond), func(tx store.ReadTx) error { _, err := tx.Get("a"); return err })
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "read the client certificate for etcd: tls: failed to find any PEM data")

	require.NoError(t, c.Certs.Issue(cert, key))
	eventually(t.Context(), t, s, func(tx store.Tx) error { return tx.Put("a", []byte("2")) })
	assert.Equal(t, "2", string(get(t, s, "a").Value))
}

func TestSecuredRefuses(t *testing.T) {
	t.Parallel()
	c, good := secured(t)
	good.DialTimeout = time.Second
	openWith(t, good)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	other, err := tls.Listen("tcp", "127.0.0.1:0", serverConfig(t, c.Certs, dir, "127.9.9.9"))
	require.NoError(t, err)
	defer other.Close()
	go greet(other)

	cases := []struct {
		name   string
		change func(cfg *etcdstore.Config)
		want   string
	}{
		{
			"wrong password", func(cfg *etcdstore.Config) { cfg.PasswordFile = file("wrong", "guess") },
			"authentication failed, invalid user ID or password; check user and password file",
		},
		{
			"empty password", func(cfg *etcdstore.Config) { cfg.PasswordFile = file("empty", "\n") },
			"read the password of etcd user root: " + filepath.Join(dir, "empty") + " is empty",
		},
		{
			"no user", func(cfg *etcdstore.Config) { cfg.User = "" },
			"permission denied; name a user, or grant its role reading and writing of the prefix",
		},
		{"not by TLS", func(cfg *etcdstore.Config) { cfg.TLS = nil }, store.ErrUnavailable.Error()},
		{
			"another CA", func(cfg *etcdstore.Config) { cfg.TLS = &etcdstore.TLSFiles{} },
			"certificate signed by unknown authority",
		},
		{
			"no certificate", func(cfg *etcdstore.Config) { cfg.TLS = &etcdstore.TLSFiles{CA: c.Certs.CA} },
			store.ErrUnavailable.Error(), // etcd's reason may get lost with the connection
		},
		{
			"another host's certificate", func(cfg *etcdstore.Config) { cfg.Endpoints = []string{other.Addr().String()} },
			"certificate is valid for 127.9.9.9, not 127.0.0.1",
		},
		{
			"not a CA", func(cfg *etcdstore.Config) { cfg.TLS = &etcdstore.TLSFiles{CA: file("ca", "x")} },
			"read etcd's CA: " + filepath.Join(dir, "ca") + " has no certificate in PEM",
		},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			_, err := etcdstore.Open(t.Context(), cfg)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// serverConfig is of a server with a certificate for a host.
func serverConfig(t *testing.T, certs *etcdtest.Certs, dir, host string) *tls.Config {
	t.Helper()
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	require.NoError(t, certs.Issue(cert, key, host))
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
}

// greet makes the handshakes of a server, and nothing more.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.(*tls.Conn).Handshake() //nolint:noctx // the peer ends it
		c.Close()
	}
}
