package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/brfuse/brfuse/internal/tlsfiles"
)

// Environment variables that stand for flags.
const (
	HostEnv    = "BRFUSE_HOST"
	tlsCertEnv = "BRFUSE_TLS_CERT"
	tlsKeyEnv  = "BRFUSE_TLS_KEY"
	tlsCAEnv   = "BRFUSE_TLS_CA"
)

// connectFlags adds the flags that say how brfused is reached.
func (a *app) connectFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	env := a.main.Getenv
	socket := env(SocketEnv)
	if socket == "" {
		socket = DefaultSocket
	}
	f.StringVar(&a.socket, "socket", socket, "unix socket of brfused; environment: "+SocketEnv)
	f.StringVar(&a.host, "host", env(HostEnv), "HOST:PORT of a brfused, instead of a socket, with --tls-*; environment: "+HostEnv)
	f.StringVar(&a.tls.Cert, "tls-cert", env(tlsCertEnv), "PEM file of a certificate that brfused's CA signed; environment: "+tlsCertEnv)
	f.StringVar(&a.tls.Key, "tls-key", env(tlsKeyEnv), "PEM file of the certificate's key; environment: "+tlsKeyEnv)
	f.StringVar(&a.tls.CA, "tls-ca", env(tlsCAEnv), "PEM file of the CA that signed brfused's certificate; environment: "+tlsCAEnv)
}

// checkConnect finds what is wrong with the flags that say how brfused is reached. A
// flag goes before the environment.
func (a *app) checkConnect(c *cobra.Command) error {
	f := c.Flags()
	switch {
	case f.Changed("host") && f.Changed("socket"):
		return usagef("--host and --socket: give one or the other")
	case f.Changed("socket"):
		a.host = ""
	}
	if a.host == "" {
		for _, name := range []string{"tls-cert", "tls-key", "tls-ca"} {
			if f.Changed(name) {
				return usagef("--%s is of use with --host only", name)
			}
		}
		return nil
	}
	if host, port, err := net.SplitHostPort(a.host); err != nil || host == "" || port == "" {
		return usagef("host %q is not HOST:PORT", a.host)
	}
	if err := a.tls.Check(); err != nil {
		return usagef("host %s: %w", a.host, err)
	}
	return nil
}

// maxAnswer is more than the list of the attachments of all hypervisors takes, in bytes.
const maxAnswer = 256 << 20

// connect connects to brfused, and tells in plain words why that fails: gRPC would wrap
// the reason in its own.
func (a *app) connect(ctx context.Context) (*grpc.ClientConn, error) {
	network, addr, creds := "unix", a.socket, insecure.NewCredentials()
	if a.host == "" {
		if err := probeSocket(ctx, a.socket); err != nil {
			return nil, err
		}
	} else {
		src, err := tlsfiles.Open(a.tls, slog.New(slog.DiscardHandler)) // they are not read twice
		if err != nil {
			return nil, err
		}
		if err := src.Probe(ctx, a.host); err != nil {
			return nil, fmt.Errorf("connect to brfused at %s: %w", a.host, err)
		}
		host, _, _ := net.SplitHostPort(a.host) // it was checked
		network, addr, creds = "tcp", a.host, credentials.NewTLS(src.Client(host))
	}
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to brfused at %s: %w", addr, err)
	}
	return conn, nil
}
