package etcdstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLSFiles are the paths of PEM files. They are read anew for each connection, so
// that certificates can be replaced while the store is open.
type TLSFiles struct {
	// CA has the certificates that etcd's is signed by. Default: the system's.
	CA string
	// Cert and Key are of the client, for an etcd that asks for it. Default: none.
	Cert, Key string
}

// check reads the files once.
func (f *TLSFiles) check() error {
	if _, err := f.roots(); err != nil {
		return err
	}
	_, err := f.certificate(nil)
	return err
}

// roots returns nil for those of the system.
func (f *TLSFiles) roots() (*x509.CertPool, error) {
	if f.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read etcd's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read etcd's CA: %s has no certificate in PEM", f.CA)
	}
	return pool, nil
}

func (f *TLSFiles) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if f.Cert == "" && f.Key == "" {
		return &tls.Certificate{}, nil // none
	}
	if f.Cert == "" || f.Key == "" {
		return nil, errors.New("read the client certificate for etcd: certificate and key are needed both, or neither")
	}
	c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("read the client certificate for etcd: %w", err)
	}
	return &c, nil
}

// config returns a configuration whose callbacks read the files.
func (f *TLSFiles) config(endpoints []string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		GetClientCertificate: f.certificate,
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection does it, by roots that are read anew
		VerifyConnection:     func(cs tls.ConnectionState) error { return f.verify(cs, endpoints) },
	}
}

// verify checks etcd's certificate: that the CA signed it, and that it is for one
// of the endpoints. Which of them is not known here; they are one cluster.
func (f *TLSFiles) verify(cs tls.ConnectionState, endpoints []string) error {
	roots, err := f.roots()
	if err != nil {
		return err
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	for _, e := range endpoints {
		host, _, herr := net.SplitHostPort(e)
		if err = errors.Join(herr, leaf.VerifyHostname(host)); err == nil {
			return nil
		}
	}
	return err
}
