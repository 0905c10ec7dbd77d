package daemon

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/vnic"
)

// openTLS returns the daemon's certificate, or nil when none is configured. The API
// is not served over TCP without one.
func openTLS(cfg Config) (*tlsfiles.Source, error) {
	if cfg.TLS == (tlsfiles.Files{}) {
		if cfg.APIListen != "" {
			return nil, fmt.Errorf("the API is served over TCP with mutual TLS only: give --tls-cert, --tls-key and --tls-ca with --api-listen %s: %w", cfg.APIListen, vnic.ErrInvalid)
		}
		return nil, nil
	}
	if err := checkListen(cfg.APIListen); err != nil {
		return nil, err
	}
	src, err := tlsfiles.Open(cfg.TLS, cfg.Log)
	if err != nil || cfg.APIListen == "" {
		return src, err
	}
	return src, checkOwnNames(src, cfg.APIListen, cfg.Cluster.Hypervisor)
}

// checkListen refuses an address that others can't call: they are told the same one.
func checkListen(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	ip, ipErr := netip.ParseAddr(host)
	if err != nil || host == "" || ipErr == nil && ip.IsUnspecified() || port == "" || port == "0" {
		return fmt.Errorf("API address %q: give HOST:PORT, such as 192.0.2.1:7443, by which other hypervisors reach this one: %w", addr, vnic.ErrInvalid)
	}
	return nil
}

// checkOwnNames returns an error when other daemons, which are told that this one's API
// is at addr, would not take its certificate. They look for the hypervisor's name, too,
// if there is one.
func checkOwnNames(src *tlsfiles.Source, addr, hypervisor string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("serve the API over TCP: %w", err)
	}
	names := []string{host}
	if hypervisor != "" {
		names = append(names, hypervisor)
	}
	if err := src.CheckNames(names...); err != nil {
		return fmt.Errorf("serve the API over TCP at %s: %w", addr, err)
	}
	return nil
}
