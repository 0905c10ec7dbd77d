package names

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Defaults of a [Config].
const (
	DefaultDomain            = "brfuse.internal"
	DefaultTTL               = 5 * time.Second
	DefaultTimeout           = 2 * time.Second
	DefaultForwards          = 256
	DefaultForwardsPerClient = 64
)

// port is that of DNS (RFC 1035, section 4.2).
const port = 53

// Listener opens both sockets for one gateway address of a network, on one port: the
// UDP socket and the TCP listener. The server closes them.
type Listener func(ctx context.Context, n vnic.Network, gateway netip.AddrPort) (*net.UDPConn, net.Listener, error)

// Config is what a [Server] is made of. The zero value is usable.
type Config struct {
	// Domain is what the zones of networks are below. Default: [DefaultDomain].
	Domain string
	// TTL is how long resolvers may keep an answer, and that there is none, in whole
	// seconds. Default: [DefaultTTL].
	TTL time.Duration
	// Upstreams answer what is not of a network. Default: the name servers in ResolvConf.
	Upstreams []netip.AddrPort
	// ResolvConf is a resolv.conf(5) whose name servers are the upstreams. It is read
	// again when it changes. Default: /etc/resolv.conf.
	ResolvConf string
	// Timeout is how long one upstream may take; after twice that a query fails.
	// Default: [DefaultTimeout].
	Timeout time.Duration
	// Forwards is how many queries of a network may wait for upstreams at once.
	// Default: [DefaultForwards].
	Forwards int
	// ForwardsPerClient is how many of those may be of one address.
	// Default: [DefaultForwardsPerClient].
	ForwardsPerClient int
	// Listen opens the sockets of a gateway. Default: [Listen].
	Listen Listener
	// Logger gets what goes wrong beside answers. Default: [slog.Default].
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Domain = cmp.Or(c.Domain, DefaultDomain)
	c.TTL = cmp.Or(c.TTL, DefaultTTL)
	c.ResolvConf = cmp.Or(c.ResolvConf, "/etc/resolv.conf")
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Forwards = cmp.Or(c.Forwards, DefaultForwards)
	c.ForwardsPerClient = cmp.Or(c.ForwardsPerClient, DefaultForwardsPerClient)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Listen == nil {
		c.Listen = Listen
	}
	return c
}
