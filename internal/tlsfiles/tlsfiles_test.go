package tlsfiles_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/tlsfiles/tlstest"
	"github.com/brfuse/brfuse/vnic"
)

func open(t *testing.T, f tlsfiles.Files) *tlsfiles.Source {
	t.Helper()
	s, err := tlsfiles.Open(f, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s
}

// echo serves one byte, and then what it is sent, until the test ends.
func echo(t *testing.T, cfg *tls.Config) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				c := tls.Server(conn, cfg)
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { _ = conn.Close() })()
				if _, err := c.Write([]byte("x")); err == nil { // after the handshake
					_, _ = io.Copy(c, c)
				}
			})
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		running.Wait()
	})
	return l.Addr().String()
}

// raw returns what files hold, as it is.
func raw(t *testing.T, f tlsfiles.Files) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	pem, err := os.ReadFile(f.CA)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	return cert, roots
}

func TestClientTakesServer(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	client := open(t, ca.Files(t))
	for _, tt := range []struct {
		name   string
		ca     *tlstest.CA
		names  []string
		change func(*x509.Certificate)
		want   string
	}{
		{"good", ca, []string{"hv1", "127.0.0.1"}, nil, ""},
		{"good, no usage named", ca, []string{"127.0.0.1"}, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, ""},
		{"another's name", ca, []string{"hv1", "127.0.0.2"}, nil, "is for hv1, 127.0.0.2, not for 127.0.0.1: give it that subject alternative name"},
		{"no name", ca, nil, func(c *x509.Certificate) { c.Subject.CommonName = "127.0.0.1" }, "is for nobody, not for 127.0.0.1"},
		{"another CA", other, []string{"127.0.0.1"}, nil, "ca.pem the CA that signed it?"},
		{"expired", ca, []string{"127.0.0.1"}, tlstest.Expired, "look at both clocks, or put a new one in its place"},
		{"of a client", ca, []string{"127.0.0.1"}, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, "incompatible key usage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := ca.Files(t)
			tt.ca.Write(t, f, tt.change, tt.names...)
			cert, _ := raw(t, f)
			err := client.Probe(t.Context(), echo(t, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}}))
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestServerTakesClient(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	addr := echo(t, open(t, ca.Files(t, "127.0.0.1")).Server())
	_, roots := raw(t, ca.Files(t))
	signed := func(by *tlstest.CA, change func(*x509.Certificate)) []tls.Certificate {
		f := by.Files(t)
		by.Write(t, f, change, "anybody")
		cert, _ := raw(t, f)
		return []tls.Certificate{cert}
	}
	for _, tt := range []struct {
		name  string
		certs []tls.Certificate
		max   uint16
		want  string
	}{
		{"good", signed(ca, nil), 0, ""},
		{"none", nil, 0, "certificate required"},
		{"another CA", signed(other, nil), 0, "unknown certificate authority"},
		{"expired", signed(ca, tlstest.Expired), 0, "expired certificate"},
		{"of a server", signed(ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), 0, "bad certificate"},
		{"TLS 1.2", signed(ca, nil), tls.VersionTLS12, "protocol version not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tls.Dialer{Config: &tls.Config{
				RootCAs: roots, MaxVersion: tt.max, NextProtos: []string{"h2"},
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(tt.certs) == 0 {
						return &tls.Certificate{}, nil
					}
					return &tt.certs[0], nil // also one that the server doesn't ask for
				},
			}}
			conn, err := d.DialContext(t.Context(), "tcp", addr)
			if err == nil {
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1))
			}
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestProbeTellsWhyItIsRefused(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	addr := echo(t, open(t, ca.Files(t, "127.0.0.1")).Server())
	f := other.Files(t)
	_, err := os.Stat(f.CA)
	require.NoError(t, err)
	f.CA = ca.Files(t).CA
	err = open(t, f).Probe(t.Context(), addr)
	require.ErrorContains(t, err, "refused by the server: remote error: tls: unknown certificate authority: is its CA the one that signed "+f.Cert+"?")
	require.ErrorContains(t, open(t, f).Probe(t.Context(), "127.0.0.1:1"), "connection refused")
	require.Error(t, open(t, f).Probe(t.Context(), "127.0.0.1"))
}

// connect returns a connection, and the serial number of the server's certificate.
func connect(t *testing.T, s *tlsfiles.Source, addr string) (conn *tls.Conn, serial string) {
	t.Helper()
	d := tls.Dialer{Config: s.Client("hv1")}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
	conn = c.(*tls.Conn)
	return conn, conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestFilesChange in all ways, under one server and one client.
func TestFilesChange(t *testing.T) {
	ca := tlstest.NewCA(t)
	sf, cf := ca.Files(t, "hv1"), ca.Files(t)
	client := open(t, cf)
	addr := echo(t, open(t, sf).Server())
	first, serial := connect(t, client, addr)
	_, again := connect(t, client, addr)
	assert.Equal(t, serial, again)

	ca.Write(t, sf, nil, "hv1")
	_, renewed := connect(t, client, addr)
	assert.NotEqual(t, serial, renewed)

	key, err := os.ReadFile(sf.Key)
	require.NoError(t, err)
	ca.Write(t, sf, nil, "hv1")
	next, err := os.ReadFile(sf.Key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(sf.Key, key, 0o600)) // the certificate is there before its key
	_, still := connect(t, client, addr)
	assert.Equal(t, renewed, still)
	require.NoError(t, os.WriteFile(sf.Key, next, 0o600))
	_, whole := connect(t, client, addr)
	assert.NotEqual(t, renewed, whole)

	ca.Write(t, sf, tlstest.Expired, "hv1")
	_, still = connect(t, client, addr)
	assert.Equal(t, whole, still, "one that expired is not taken up")
	require.NoError(t, os.Remove(sf.CA))
	_, still = connect(t, client, addr)
	assert.Equal(t, whole, still)

	other := tlstest.NewCA(t)
	other.Write(t, sf, nil, "hv1")
	d := tls.Dialer{Config: client.Client("hv1")}
	_, err = d.DialContext(t.Context(), "tcp", addr)
	require.ErrorContains(t, err, "the CA that signed it?")
	other.Write(t, cf, nil)
	connect(t, client, addr)

	_, err = first.Write([]byte("y"))
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = io.ReadFull(first, b)
	require.NoError(t, err)
	assert.Equal(t, "y", string(b), "connections live on")
}

func TestOwnCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		f := ca.Files(t, "hv1")
		var log bytes.Buffer
		s, err := tlsfiles.Open(f, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.NoError(t, s.CheckNames("hv1"))
		<-time.After(101 * time.Hour)
		ca.Write(t, f, tlstest.Expired, "hv1")
		for range 3 {
			require.ErrorContains(t, s.CheckNames("hv1"), "certificate "+f.Cert+" expired at")
		}
		for _, what := range []string{"TLS connections are refused", "the ones before stay in use"} {
			assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte(what)), "once, not at every handshake: %s", what)
		}
		_, err = tlsfiles.Open(f, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "put a new one in its place")
		ca.Write(t, f, nil, "hv1")
		require.NoError(t, s.CheckNames("hv1"))
	})
}

func TestCheckNames(t *testing.T) {
	f := tlstest.NewCA(t).Files(t, "hv1", "192.0.2.1", "fd00::1")
	s := open(t, f)
	for _, names := range [][]string{{"hv1"}, {"HV1"}, {"192.0.2.1"}, {"fd00::1"}, {"192.0.2.9", "hv1"}} {
		require.NoError(t, s.CheckNames(names...), names)
	}
	require.ErrorContains(t, s.CheckNames("hv2", "192.0.2.2"), "certificate "+f.Cert)
	require.ErrorContains(t, s.CheckNames("hv2", "192.0.2.2"), "is for hv1, 192.0.2.1, fd00::1, not for hv2 or 192.0.2.2")
	require.Error(t, s.CheckNames(""))
}

func TestOpenNamesTheFile(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, f *tlsfiles.Files)
		want  func(f tlsfiles.Files) string
	}{
		{"no certificate", func(_ *testing.T, f *tlsfiles.Files) { f.Cert = "" }, func(tlsfiles.Files) string { return "give --tls-cert" }},
		{"no key", func(_ *testing.T, f *tlsfiles.Files) { f.Key = "" }, func(tlsfiles.Files) string { return "give --tls-key" }},
		{"no CA", func(_ *testing.T, f *tlsfiles.Files) { f.CA = "" }, func(tlsfiles.Files) string { return "give --tls-ca" }},
		{"missing", func(t *testing.T, f *tlsfiles.Files) { t.Helper(); require.NoError(t, os.Remove(f.Key)) }, func(f tlsfiles.Files) string { return f.Key }},
		{"another's key", func(t *testing.T, f *tlsfiles.Files) { t.Helper(); f.Key = ca.Files(t).Key }, func(f tlsfiles.Files) string { return f.Key }},
		{"CA without a certificate", func(_ *testing.T, f *tlsfiles.Files) { f.CA = f.Key }, func(f tlsfiles.Files) string { return f.CA + " has none" }},
		{"not yet valid", func(t *testing.T, f *tlsfiles.Files) {
			t.Helper()
			ca.Write(t, *f, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
		}, func(f tlsfiles.Files) string { return f.Cert + " is valid from" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := ca.Files(t)
			tt.spoil(t, &f)
			_, err := tlsfiles.Open(f, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, tt.want(f))
			if f.Cert == "" {
				require.ErrorIs(t, err, vnic.ErrInvalid)
			}
		})
	}
}
