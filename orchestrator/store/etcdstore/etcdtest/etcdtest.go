// Package etcdtest runs clusters of real etcd servers, the program `etcd` found by
// PATH, for tests and benchmarks. It does all by processes, signals and etcd's
// HTTP gateway, and nothing by what it tests.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
)

const (
	clientPort, peerPort = "2379", "2380"
	// startLimit is how long a cluster may take until it serves.
	startLimit = 30 * time.Second
	// Root is the user that Options.Password is of.
	Root = "root"
)

// ErrMissing is returned when etcd isn't installed.
var ErrMissing = errors.New("etcd is missing; scripts/deps installs it")

// Options say how a cluster is started. The zero value is one member without TLS
// and authentication.
type Options struct {
	// Members is how many there are. Default: 1, or one for each of Hosts.
	Members int
	// Hosts are the members' IP addresses, on which ports 2379 and 2380 are free.
	// Default: unused ones of 127.0.0.0/8.
	Hosts []string
	// Namespaces are what the members run in, one for each. They stay the caller's.
	// Default: that of the program.
	Namespaces []*netnsx.NS
	// TLS has clients use TLS and show a certificate. See [Cluster.Certs].
	TLS bool
	// Password, when not "", is the user [Root]'s, and authentication is on.
	Password string
	// Args are further arguments of etcd.
	Args []string
}

// Cluster is a cluster of etcd. It is safe for concurrent use.
type Cluster struct {
	Members []*Member
	// Certs are those of a cluster with TLS.
	Certs *Certs

	opts Options
	dir  string
}

// New starts a cluster and returns when all members serve. Processes end with the
// program, however it ends; Close removes the data too.
func New(ctx context.Context, o Options) (*Cluster, error) {
	c, err := newCluster(o)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), c.Close())
	}
	return c, nil
}

// Start is New for tests: without etcd the test is skipped, and fails where the
// environment has CI. The cluster ends with the test.
func Start(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c, err := New(tb.Context(), o)
	if errors.Is(err, ErrMissing) && os.Getenv("CI") == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("close etcd: %v", err)
		}
	})
	return c
}

// newCluster makes the folder, with the certificates, and picks addresses.
func newCluster(o Options) (*Cluster, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, ErrMissing
	}
	if len(o.Hosts) == 0 {
		hosts, err := freeHosts(max(o.Members, 1))
		if err != nil {
			return nil, err
		}
		o.Hosts = hosts
	}
	if o.Members != 0 && len(o.Hosts) != o.Members || len(o.Namespaces) != 0 && len(o.Namespaces) != len(o.Hosts) {
		return nil, fmt.Errorf("%d members with %d hosts and %d namespaces: want as many", o.Members, len(o.Hosts), len(o.Namespaces))
	}
	dir, err := os.MkdirTemp("", "brfuse-etcd-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, dir: dir}
	for i, h := range o.Hosts {
		m := &Member{c: c, name: fmt.Sprintf("m%d", i), host: h, dir: filepath.Join(dir, fmt.Sprintf("m%d", i))}
		if len(o.Namespaces) > 0 {
			m.ns = o.Namespaces[i]
		}
		c.Members = append(c.Members, m)
	}
	if o.TLS {
		if c.Certs, err = newCerts(filepath.Join(dir, "certs"), o.Hosts); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	errs := make(chan error, len(c.Members))
	for _, m := range c.Members { // none serves before a majority runs
		go func() { errs <- m.Start(ctx) }()
	}
	var err error
	for range c.Members {
		err = errors.Join(err, <-errs)
	}
	if err == nil && c.opts.Password != "" {
		err = c.enableAuth(ctx)
	}
	return err
}

// Endpoints are the HOST:PORT of all members.
func (c *Cluster) Endpoints() []string {
	var eps []string
	for _, m := range c.Members {
		eps = append(eps, m.Endpoint())
	}
	return eps
}

// Close kills all members and removes their data.
func (c *Cluster) Close() error {
	for _, m := range c.Members {
		m.Kill()
	}
	return os.RemoveAll(c.dir)
}

// freeHosts returns neighbouring loopback addresses on which nobody listens.
func freeHosts(n int) ([]string, error) {
	for range 100 {
		net24 := fmt.Sprintf("127.%d.%d.", 1+rand.N(254), rand.N(256)) //nolint:gosec // no secret
		var hosts []string
		for i := range n {
			if h := fmt.Sprint(net24, 1+i); free(h, clientPort) && free(h, peerPort) {
				hosts = append(hosts, h)
			}
		}
		if len(hosts) == n {
			return hosts, nil
		}
	}
	return nil, errors.New("no loopback addresses with free ports 2379 and 2380")
}

func free(host, port string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, port)) //nolint:noctx // returns at once
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// arguments of a member's etcd.
func (m *Member) arguments() []string {
	var peers []string
	for _, p := range m.c.Members {
		peers = append(peers, p.name+"="+p.peerURL())
	}
	args := []string{
		"--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
		"--listen-client-urls", m.url(), "--advertise-client-urls", m.url(),
		"--listen-peer-urls", m.peerURL(), "--initial-advertise-peer-urls", m.peerURL(),
		"--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", filepath.Base(m.c.dir),
		"--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn",
	}
	if certs := m.c.Certs; certs != nil {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", certs.CA,
			"--cert-file", certs.serverCert, "--key-file", certs.serverKey)
	}
	if m.c.opts.Password != "" {
		args = append(args, "--bcrypt-cost", "4") // the least; it is no secret
	}
	return append(args, m.c.opts.Args...)
}
