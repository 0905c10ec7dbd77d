package port

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// sysctls is the folder of the network's settings. What is in it belongs to
// the namespace of the thread that looks.
const sysctls = "/proc/sys/net"

func get(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctls, name))
	return strings.TrimSpace(string(b)), err
}

// set writes a setting unless it has the value already. One that this kernel
// doesn't have needs no setting.
func set(name, value string) error {
	have, err := get(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && have == value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(sysctls, name), []byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set sysctl net/%s to %s: %w", name, value, err)
	}
	return nil
}

// forward makes the host forward the families of addresses. It stays on when
// they go: others may have come to rely on it.
func (l *Links) forward(addresses []netip.Addr) error {
	var errs error
	for _, a := range addresses {
		if a.Is4() {
			errs = errors.Join(errs, set("ipv4/ip_forward", "1"))
		} else {
			errs = errors.Join(errs, l.forward6())
		}
	}
	return errs
}

// forward6 makes the host a router. A router ignores router advertisements, and
// would lose its own default route, where accept_ra is 1; 2 keeps them.
func (l *Links) forward6() error {
	const name = "ipv6/conf/all/forwarding"
	if have, err := get(name); err != nil || have != "0" {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("this kernel has no ipv6: %w", vnic.ErrUnsupported)
		}
		return err
	}
	conf := filepath.Join(sysctls, "ipv6/conf")
	links, err := os.ReadDir(conf)
	if err != nil {
		return fmt.Errorf("list sysctls of links: %w", err)
	}
	for _, link := range links {
		ra := "ipv6/conf/" + link.Name() + "/accept_ra"
		if have, err := get(ra); err != nil || have != "1" || link.Name() == "all" || link.Name() == "lo" {
			continue // gone meanwhile, or needs nothing
		}
		if err := set(ra, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	l.log.Info("host forwards ipv6 from now on, and keeps accepting router advertisements", "sysctl", "net/"+name)
	return set(name, "1")
}

// quiet lets the bridge have IPv6 addresses, usable at once, and no
// configuration by what comes in from its ports.
func quiet(n vnic.Network) error {
	conf := "ipv6/conf/" + n.Bridge + "/"
	var errs error
	for _, s := range n.Subnets {
		if s.Addr().Is6() {
			errs = errors.Join(errs, set(conf+"disable_ipv6", "0"))
		}
	}
	return errors.Join(errs, set(conf+"accept_ra", "0"), set(conf+"accept_dad", "0"))
}

// Warnings returns what in the host's settings may keep pods from talking, with
// the remedy.
func (l *Links) Warnings(ctx context.Context) ([]string, error) {
	var found []string
	err := l.Inside(ctx, func() error {
		for _, call := range []string{"iptables", "ip6tables", "arptables"} {
			name := "bridge/bridge-nf-call-" + call
			have, err := get(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("read sysctl: %w", err)
			}
			if have == "1" {
				found = append(found, fmt.Sprintf("sysctl net.bridge.bridge-nf-call-%s is 1: frames between pods of one bridge pass the host's own IP filters, "+
					"and a forward chain that drops by policy drops them, and pods don't reach their own published ports; set it to 0, or accept what is forwarded from and to brfuse's bridges", call))
			}
		}
		return nil
	})
	return found, err
}
