package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// prevResult returns the result of the plugins before this one, or nil.
func prevResult(c config) (*types100.Result, error) {
	if len(c.PrevResult) == 0 || string(c.PrevResult) == "null" {
		return nil, nil
	}
	return parseResult("prevResult", c.CNIVersion, c.PrevResult)
}

// parseResult reads a result of a plugin, whose version is the configuration's
// when it names none.
func parseResult(what, confVersion string, b []byte) (*types100.Result, error) {
	var head struct {
		Version string `json:"cniVersion"`
	}
	err := json.Unmarshal(b, &head)
	if err == nil && head.Version == "" {
		head.Version = confVersion
		var m map[string]any
		if err = json.Unmarshal(b, &m); err == nil && m != nil {
			m["cniVersion"] = confVersion
			b, err = json.Marshal(m)
		}
	}
	var r types.Result
	if err == nil {
		r, err = version.NewResult(head.Version, b)
	}
	var current *types100.Result
	if err == nil {
		current, err = types100.NewResultFromResult(r)
	}
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "malformed "+what, err.Error())
	}
	return current, nil
}

// result returns the result of ADD: that of the plugins before with the new
// interface at its end.
func result(before *types100.Result, args *skel.CmdArgs, a vnic.Attachment, dns types.DNS) *types100.Result {
	r := &types100.Result{}
	if before != nil {
		r = before
	}
	index := len(r.Interfaces)
	r.Interfaces = append(r.Interfaces, &types100.Interface{
		Name: args.IfName, Mac: a.MAC.String(), Mtu: a.MTU, Sandbox: args.Netns, PciID: a.GuestPCI,
	})
	for i, p := range a.Leases {
		ip := &types100.IPConfig{Interface: &index, Address: ipNet(p)}
		if i < len(a.Gateways) && a.Gateways[i].IsValid() {
			ip.Gateway = a.Gateways[i].AsSlice()
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, route := range a.Routes() {
		tr := &types.Route{Dst: ipNet(route.Destination)}
		if route.Gateway.IsValid() {
			tr.GW = route.Gateway.AsSlice()
		}
		r.Routes = append(r.Routes, tr)
	}
	if !dns.IsEmpty() {
		r.DNS = dns
	}
	return r
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// print writes a result in the version of the configuration.
func (p *Plugin) print(c config, r *types100.Result) error {
	r.CNIVersion = latest
	out, err := r.GetAsVersion(c.CNIVersion)
	if err == nil {
		err = out.PrintTo(p.stdout)
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, "write the result", err.Error())
	}
	return nil
}

// dns returns the result's DNS settings: the runtime's, or the configured ones.
func (c config) dns() types.DNS {
	d := c.Runtime.DNS
	if len(d.Servers)+len(d.Searches)+len(d.Options) == 0 {
		return c.DNS
	}
	return types.DNS{Nameservers: d.Servers, Domain: c.DNS.Domain, Search: d.Searches, Options: d.Options}
}

// served returns the DNS settings of a network whose gateways serve names.
func served(d vnic.DNS) types.DNS {
	dns := types.DNS{Search: d.Search, Options: d.Options}
	for _, a := range d.Nameservers {
		dns.Nameservers = append(dns.Nameservers, a.String())
	}
	return dns
}

// expect returns what a chain's result says of the container's interface. Other
// plugins' interfaces are not its business.
func expect(r *types100.Result, args *skel.CmdArgs) (e cniapi.Expect, err error) {
	at := -1
	for i, f := range r.Interfaces {
		if f != nil && f.Name == args.IfName && f.Sandbox == args.Netns {
			at = i
		}
	}
	if at < 0 {
		return e, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("\"prevResult\" has no interface %s in %s", args.IfName, args.Netns), "give the result of ADD")
	}
	if mac := r.Interfaces[at].Mac; mac != "" {
		if e.MAC, err = vnic.ParseMAC(mac); err != nil {
			return e, invalid("prevResult", mac, err.Error())
		}
	}
	for _, ip := range r.IPs {
		if ip == nil || ip.Interface != nil && *ip.Interface != at {
			continue
		}
		if p, ok := prefixOf(ip.Address); ok {
			e.Addresses = append(e.Addresses, p)
		}
	}
	for _, tr := range r.Routes {
		if tr == nil {
			continue
		}
		p, ok := prefixOf(tr.Dst)
		if !ok {
			continue
		}
		route := vnic.Route{Destination: p.Masked()}
		if gw, ok := netip.AddrFromSlice(tr.GW); ok {
			route.Gateway = gw.Unmap()
		}
		e.Routes = append(e.Routes, route)
	}
	return e, nil
}
