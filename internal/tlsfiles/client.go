package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Client returns the configuration of a client of a server that has one of the names:
// host names or addresses.
func (s *Source) Client(names ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		// The server is verified by VerifyConnection: the package does so by one name and
		// by roots that stay the same.
		InsecureSkipVerify: true,
		VerifyConnection:   func(st tls.ConnectionState) error { return s.verify(st, names) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m, err := s.get()
			if err != nil {
				return nil, err
			}
			return &m.cert, nil
		},
	}
}

// verify checks the server's certificate as crypto/tls does, and that it has one of
// the names.
func (s *Source) verify(st tls.ConnectionState, names []string) error {
	m, err := s.get()
	if err != nil {
		return err
	}
	// There is a first one: a server that shows none is refused before.
	leaf := st.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: m.roots, Intermediates: x509.NewCertPool()} // of key usage serverAuth
	for _, c := range st.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("the server's certificate, serial %d: %w%s", leaf.SerialNumber, err, s.remedy(err))
	}
	return named(leaf, "the server's certificate", names)
}

// remedy says what to do about a certificate that is refused.
func (s *Source) remedy(err error) string {
	if inv, ok := errors.AsType[x509.CertificateInvalidError](err); ok && inv.Reason == x509.Expired {
		return ": look at both clocks, or put a new one in its place"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ": is " + s.files.CA + " the CA that signed it?"
	}
	return ""
}

// named returns an error unless a certificate has one of the names.
func named(leaf *x509.Certificate, what string, names []string) error {
	if slices.ContainsFunc(names, func(name string) bool { return leaf.VerifyHostname(name) == nil }) {
		return nil
	}
	has := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		has = append(has, ip.String())
	}
	if len(has) == 0 {
		has = []string{"nobody"}
	}
	return fmt.Errorf("%s, serial %d, is for %s, not for %s: give it that subject alternative name",
		what, leaf.SerialNumber, strings.Join(has, ", "), strings.Join(names, " or "))
}

// CheckNames returns an error when clients that look for one of the names would refuse
// the own certificate.
func (s *Source) CheckNames(names ...string) error {
	m, err := s.get()
	if err != nil {
		return err
	}
	return named(m.cert.Leaf, "certificate "+s.files.Cert, names)
}

// probeLimit bounds a probe.
const probeLimit = 5 * time.Second

// Probe connects to a server of gRPC at HOST:PORT that has the name HOST, and tells in
// plain words why that fails.
func (s *Source) Probe(ctx context.Context, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	d := tls.Dialer{Config: s.Client(host)}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	// A client knows by the first byte only whether it was taken (RFC 8446, section
	// 4.4.2.4). A server of HTTP/2 speaks without being asked.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("refused by the server: %w: is its CA the one that signed %s?", err, s.files.Cert)
	}
	return nil
}
