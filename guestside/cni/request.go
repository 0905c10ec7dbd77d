package cni

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// requestOf returns what identifies the attachment that a call is about.
func requestOf(verb cniapi.Verb, c config, args *skel.CmdArgs) cniapi.Request {
	return cniapi.Request{Verb: verb, Attach: vnic.Request{
		Key: vnic.Key{Pod: args.ContainerID, Interface: args.IfName}, Network: c.Network, Netns: resolved(args.Netns),
	}}
}

// resolved returns a path without symbolic links in its folders, such as
// /run/netns/x for /var/run/netns/x: the agent may have other files than the
// plugin, and would follow them there. The last part is left, as in
// /proc/7/ns/net.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && filepath.IsAbs(path) {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// addRequest returns what ADD asks for, without what a delegated IPAM plugin
// has yet to say.
func addRequest(c config, args *skel.CmdArgs) (req cniapi.Request, err error) {
	req = requestOf(cniapi.Add, c, args)
	a := &req.Attach
	env, err := parseArgs(args.Args)
	if err != nil {
		return req, err
	}
	if c.MTU < 0 || c.MTU != 0 && (c.MTU < vnic.MinMTU || c.MTU > vnic.MaxMTU) {
		return req, invalid("mtu", c.MTU, fmt.Sprintf("give bytes in %d-%d", vnic.MinMTU, vnic.MaxMTU))
	}
	if c.Queues < 0 || c.Queues > vnic.MaxQueues {
		return req, invalid("queues", c.Queues, fmt.Sprintf("give a number in 1-%d", vnic.MaxQueues))
	}
	a.MTU, a.Queues = c.MTU, c.Queues
	if c.NoDefaultRoute != nil {
		a.NoDefaultRoute = *c.NoDefaultRoute
	} else {
		req.AutoDefaultRoute = true
	}
	a.Labels = labels(c.Name, env)
	if a.Routes, err = c.routes(); err != nil {
		return req, err
	}
	if a.MAC, err = wantedMAC(c, env); err != nil {
		return req, err
	}
	if c.IPAM.Type == "" { // else that plugin sees to them
		if a.Addresses, err = wantedIPs(c, env); err != nil {
			return req, err
		}
	}
	return req, c.Runtime.apply(c, a)
}

// labels returns the labels of an attachment. Values that labels can't have are
// left out: they are for people and their tools, and no reason to fail.
func labels(conf string, env map[string]string) map[string]string {
	ls := map[string]string{cniapi.LabelNetwork: conf}
	for label, key := range map[string]string{
		cniapi.LabelPodNamespace: "K8S_POD_NAMESPACE", cniapi.LabelPodName: "K8S_POD_NAME", cniapi.LabelPodUID: "K8S_POD_UID",
	} {
		if v := env[key]; v != "" && vnic.CheckLabels(map[string]string{label: v}) == nil {
			ls[label] = v
		}
	}
	return ls
}

// wanted is a value and the key that it was given by.
type wanted[T any] struct {
	key   string
	value T
}

// wantedMAC returns the MAC that the runtime wants. A key that is more explicit
// goes before one that is less.
func wantedMAC(c config, env map[string]string) (vnic.MAC, error) {
	for _, w := range []wanted[string]{
		{"runtimeConfig.mac", c.Runtime.MAC}, {"args.cni.mac", c.Args.CNI.MAC}, {"CNI_ARGS MAC", env["MAC"]},
	} {
		if w.value == "" {
			continue
		}
		mac, err := vnic.ParseMAC(w.value)
		if err != nil {
			return mac, invalid(w.key, w.value, err.Error())
		}
		return mac, nil
	}
	return vnic.MAC{}, nil
}

// wantedIPs returns the addresses that the runtime wants. They may come with
// prefix lengths, which are the network's business.
func wantedIPs(c config, env map[string]string) ([]netip.Addr, error) {
	var fromEnv []string
	if ip := env["IP"]; ip != "" {
		fromEnv = strings.Split(ip, ",")
	}
	for _, w := range []wanted[[]string]{
		{"runtimeConfig.ips", c.Runtime.IPs}, {"args.cni.ips", c.Args.CNI.IPs}, {"CNI_ARGS IP", fromEnv},
	} {
		if len(w.value) == 0 {
			continue
		}
		var ips []netip.Addr
		for _, s := range w.value {
			ip, err := parseIP(s)
			if err != nil {
				return nil, invalid(w.key, s, "give an address such as 10.1.0.7 or 10.1.0.7/24")
			}
			if slices.ContainsFunc(ips, func(o netip.Addr) bool { return o.Is4() == ip.Is4() }) {
				return nil, invalid(w.key, strings.Join(w.value, ", "), "give one address a family at most")
			}
			ips = append(ips, ip)
		}
		return ips, nil
	}
	return nil, nil
}

func parseIP(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Addr().Unmap(), err
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err
}

// prefixOf returns n in the form of package netip.
func prefixOf(n net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if a = a.Unmap(); a.Is4() && bits == 128 {
		ones -= 96
	}
	p := netip.PrefixFrom(a, ones)
	return p, p.IsValid()
}

// apply puts what the runtime asks for beside addresses and MAC into a request.
func (r runtimeConfig) apply(c config, a *vnic.Request) error {
	switch {
	case len(r.IPRanges) > 0 && c.IPAM.Type == "":
		return unsupported("runtimeConfig.ipRanges", string(r.IPRanges), "ranges are the network's subnets on the hypervisor; or configure an IPAM plugin")
	case r.InfinibandGUID != "":
		return unsupported("runtimeConfig.infinibandGUID", r.InfinibandGUID, "a vnic is an Ethernet device")
	case r.DeviceID != "":
		return unsupported("runtimeConfig.deviceID", r.DeviceID, "the hypervisor plugs a new device for every pod")
	}
	b := vnic.Bandwidth{
		Ingress: vnic.Rate{Bits: r.Bandwidth.IngressRate, Burst: r.Bandwidth.IngressBurst},
		Egress:  vnic.Rate{Bits: r.Bandwidth.EgressRate, Burst: r.Bandwidth.EgressBurst},
	}
	if err := b.Validate(); err != nil {
		return invalid("runtimeConfig.bandwidth", fmt.Sprintf("%+v", r.Bandwidth), err.Error())
	}
	a.Bandwidth = b
	for i, m := range r.PortMappings {
		p, err := m.mapping()
		if err != nil {
			return invalid(fmt.Sprintf("runtimeConfig.portMappings[%d]", i), fmt.Sprintf("%+v", m), err.Error())
		}
		a.Ports = append(a.Ports, p)
	}
	return nil
}

func (m portMapping) mapping() (p vnic.PortMapping, err error) {
	if m.HostPort < 1 || m.HostPort > 0xffff || m.ContainerPort < 1 || m.ContainerPort > 0xffff {
		return p, fmt.Errorf("give hostPort and containerPort in 1-65535")
	}
	p = vnic.PortMapping{HostPort: uint16(m.HostPort), Port: uint16(m.ContainerPort), Protocol: strings.ToLower(m.Protocol)}
	if p.Protocol == "" {
		p.Protocol = vnic.TCP
	}
	if m.HostIP != "" {
		ip, err := netip.ParseAddr(m.HostIP)
		if err != nil {
			return p, fmt.Errorf("hostIP is no address")
		}
		if ip = ip.Unmap(); !ip.IsUnspecified() { // else all of them, which is the default
			p.HostIP = ip
		}
	}
	return p, p.Validate()
}

// known are the keys of CNI_ARGS that mean something to the plugin or are
// everybody's.
func known(key string) bool {
	switch key {
	case "IgnoreUnknown", "IP", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID":
		return true
	}
	return false
}

// parseArgs reads CNI_ARGS. As other plugins do, it fails for a key that it
// doesn't know unless IgnoreUnknown is true.
func parseArgs(s string) (map[string]string, error) {
	m := map[string]string{}
	var strange []string
	for pair := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("invalid CNI_ARGS: %q is no KEY=VALUE", pair), "")
		}
		m[k] = v
		if !known(k) {
			strange = append(strange, k)
		}
	}
	ignore := strings.ToLower(m["IgnoreUnknown"])
	if len(strange) > 0 && ignore != "1" && ignore != "true" {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("invalid CNI_ARGS: unknown %s", strings.Join(strange, ", ")), "leave it out, or add IgnoreUnknown=1")
	}
	return m, nil
}
