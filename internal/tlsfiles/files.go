package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Files are paths of PEM files. All are required.
type Files struct {
	Cert string // a certificate, and after it those between it and the CA
	Key  string // its private key
	CA   string // certificates of those who sign the other side's
}

// Check returns a [vnic.ErrInvalid] that names what is missing.
func (f Files) Check() error {
	for _, file := range []struct{ path, flag string }{{f.Cert, "--tls-cert"}, {f.Key, "--tls-key"}, {f.CA, "--tls-ca"}} {
		if file.path == "" {
			return fmt.Errorf("TLS needs a certificate, its key and a CA: give %s: %w", file.flag, vnic.ErrInvalid)
		}
	}
	return nil
}

// material is what the files hold.
type material struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// read returns what the files hold now. A certificate that is not valid now is an error.
func (f Files) read() (*material, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key) // its Leaf is set
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	if err := f.current(cert.Leaf, time.Now()); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("certificates of the CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificates of the CA: %s has none: give a PEM file: %w", f.CA, vnic.ErrInvalid)
	}
	return &material{cert, roots}, nil
}

// current returns an error when the certificate is not valid at t.
func (f Files) current(leaf *x509.Certificate, t time.Time) error {
	switch {
	case t.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s expired at %s: put a new one in its place", f.Cert, leaf.NotAfter.Format(time.RFC3339))
	case t.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s is valid from %s only: look at the clock, or put another one in its place", f.Cert, leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// stamps tell whether the files have changed: replaced, renamed over, or written.
type stamps [3]os.FileInfo

// stamp returns the files' stamps. A file that can't be looked at has none.
func (f Files) stamp() (s stamps, err error) {
	var errs [3]error
	for i, path := range []string{f.Cert, f.Key, f.CA} {
		s[i], errs[i] = os.Stat(path)
	}
	return s, errors.Join(errs[:]...)
}

// settleTime is more than the step of any file system's clock.
const settleTime = 2 * time.Second

// settled says whether the files were last written so long before t that one that is
// written anew has another time.
func (s stamps) settled(t time.Time) bool {
	for _, fi := range s {
		if fi == nil || t.Sub(fi.ModTime()).Abs() < settleTime {
			return false
		}
	}
	return true
}

// equal says whether nothing has changed between the two.
func (s stamps) equal(o stamps) bool {
	for i, a := range s {
		b := o[i]
		switch {
		case a == nil || b == nil:
			if a != b {
				return false
			}
		case !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()):
			return false
		}
	}
	return true
}
