package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certs are the certificates of a cluster with TLS, in files.
type Certs struct {
	// CA signed the others; Cert and Key are for a client.
	CA, Cert, Key string

	serverCert, serverKey string
	pool                  *x509.CertPool
	ca                    *x509.Certificate
	caKey                 *ecdsa.PrivateKey
}

// newCerts makes certificates for servers at the hosts, in a new folder.
func newCerts(dir string, hosts []string) (*Certs, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &Certs{CA: filepath.Join(dir, "ca.pem"), caKey: key, pool: x509.NewCertPool()}
	c.ca = template("etcdtest")
	c.ca.IsCA, c.ca.BasicConstraintsValid, c.ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, c.ca, c.ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	c.pool.AddCert(c.ca)
	if err := writePEM(c.CA, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	c.serverCert, c.serverKey = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	if err := c.Issue(c.serverCert, c.serverKey, hosts...); err != nil {
		return nil, err
	}
	c.Cert, c.Key = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	return c, c.Issue(c.Cert, c.Key)
}

// Issue writes a new certificate, and its key, that is good for clients, and for
// servers at the hosts.
func (c *Certs) Issue(certPath, keyPath string, hosts ...string) error {
	t := template("") // etcd takes a name for that of a user
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(h))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.ca, key.Public(), c.caKey)
	if err != nil {
		return err
	}
	kder, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(keyPath, "EC PRIVATE KEY", kder); err != nil {
		return err
	}
	return writePEM(certPath, "CERTIFICATE", der)
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
