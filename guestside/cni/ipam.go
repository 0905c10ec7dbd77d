package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// delegation is a call of another plugin. It gets this one's environment, but
// for the verb.
type delegation struct {
	plugin  string // its name
	path    string // CNI_PATH
	verb    string
	stdin   []byte
	stderr  io.Writer
	timeout time.Duration
}

// run runs a delegated plugin and returns what it wrote. The library's own way
// to do so would bring in an HTTP client and tracing, three times the size of
// this program.
func run(d delegation) ([]byte, error) {
	path, err := findPlugin(d.plugin, d.path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+d.verb)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(d.stdin), &stdout, d.stderr
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, types.NewError(types.ErrTryAgainLater, fmt.Sprintf("ipam plugin %s: %s took longer than %s", d.plugin, d.verb, d.timeout), "set \"timeout\" in the CNI configuration")
	}
	var e types.Error
	if json.Unmarshal(stdout.Bytes(), &e) != nil || e.Msg == "" {
		return nil, types.NewError(types.ErrInternal, fmt.Sprintf("ipam plugin %s: %s: %v", d.plugin, d.verb, err), strings.TrimSpace(stdout.String()))
	}
	return nil, types.NewError(e.Code, fmt.Sprintf("ipam plugin %s: %s", d.plugin, e.Msg), e.Details)
}

// findPlugin looks for a plugin in the folders of CNI_PATH.
func findPlugin(name, path string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return "", invalid("ipam.type", name, "give the plugin's name without a path")
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		fi, err := os.Stat(file)
		if err == nil && fi.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid \"ipam.type\": no plugin %s in CNI_PATH %s", name, path),
		"install it there, or leave \"ipam\" out: the hypervisor leases addresses then")
}

// forward calls the delegated plugin, if there is one, for a verb without a
// result.
func (p *Plugin) forward(c config, args *skel.CmdArgs, verb string) error {
	if c.IPAM.Type == "" {
		return nil
	}
	_, err := p.delegate(p.delegation(c, args, verb))
	return err
}

func (p *Plugin) delegation(c config, args *skel.CmdArgs, verb string) delegation {
	return delegation{plugin: c.IPAM.Type, path: args.Path, verb: verb, stdin: args.StdinData, stderr: p.stderr, timeout: c.timeout()}
}

// delegateAdd has the delegated plugin choose the addresses and routes, and puts
// them into the request. It returns the DNS settings.
func (p *Plugin) delegateAdd(c config, args *skel.CmdArgs, req *cniapi.Request) (types.DNS, error) {
	out, err := p.delegate(p.delegation(c, args, "ADD"))
	if err != nil {
		return types.DNS{}, err
	}
	r, err := parseResult("result of ipam plugin "+c.IPAM.Type, c.CNIVersion, out)
	if err != nil {
		return types.DNS{}, err
	}
	gateways, err := applyIPs(c.IPAM.Type, r, &req.Attach)
	if err != nil {
		return types.DNS{}, err
	}
	if err := applyRoutes(c, r, gateways, &req.Attach); err != nil {
		return types.DNS{}, err
	}
	// The gateways are the plugin's, so the network's own must not be used.
	req.Attach.NoDefaultRoute = true
	if d := c.dns(); !d.IsEmpty() && r.DNS.IsEmpty() {
		return d, nil
	}
	return r.DNS, nil
}

// applyIPs puts the chosen addresses into a request and returns their gateways.
func applyIPs(plugin string, r *types100.Result, a *vnic.Request) (gateways []netip.Addr, err error) {
	for _, ip := range r.IPs {
		if ip == nil {
			continue
		}
		p, ok := prefixOf(ip.Address)
		if !ok {
			return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("ipam plugin %s: malformed address %s", plugin, &ip.Address), "")
		}
		a.Addresses = append(a.Addresses, p.Addr())
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok {
			gateways = append(gateways, gw.Unmap())
		}
	}
	if len(a.Addresses) == 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("ipam plugin %s gave no address", plugin), "configure a range for it")
	}
	a.Exact = true
	return gateways, nil
}

// applyRoutes puts the plugin's routes into a request. Those without a gateway
// lead over the address's, and so do the default routes, unless the plugin has
// given one or the configuration wants none.
func applyRoutes(c config, r *types100.Result, gateways []netip.Addr, a *vnic.Request) error {
	seen := map[netip.Prefix]bool{}
	for _, route := range a.Routes {
		seen[route.Destination] = true
	}
	for _, tr := range r.Routes {
		if tr == nil {
			continue
		}
		route, err := routeOf(tr)
		if err != nil {
			return unsupported("ipam route", tr, err.Error())
		}
		for _, gw := range gateways {
			if !route.Gateway.IsValid() && gw.Is4() == route.Destination.Addr().Is4() {
				route.Gateway = gw
			}
		}
		if !seen[route.Destination] {
			seen[route.Destination] = true
			a.Routes = append(a.Routes, route)
		}
	}
	if c.NoDefaultRoute != nil && *c.NoDefaultRoute {
		return nil
	}
	for _, gw := range gateways {
		dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if !seen[dst] {
			seen[dst] = true
			a.Routes = append(a.Routes, vnic.Route{Destination: dst, Gateway: gw})
		}
	}
	return nil
}
