package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/vnic"
)

// NoNames is the [Config.Names] of a daemon that serves no names.
const NoNames = "none"

// domain is a name of host names' letters (RFC 1123, section 2.1).
var domain = regexp.MustCompile(`(?i)^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?$`)

// checkDomain checks a [Config.Names].
func checkDomain(s string) error {
	const most = 128 // names of networks and pods come before it
	if s != "" && s != NoNames && (len(s) > most || !domain.MatchString(s)) {
		return fmt.Errorf("--names %q: a domain is labels of letters, digits and hyphens, with dots between them, and %d characters at most; or %q", s, most, NoNames)
	}
	return nil
}

// serveNames makes the name server, unless none is wanted.
func (p *parts) serveNames(cfg Config) fabric.Names {
	if cfg.Names == NoNames {
		return nil
	}
	p.names = names.New(names.Config{Domain: cfg.Names, Logger: cfg.Log})
	return nameServer{p.names}
}

// nameServer serves the names of pods on the gateways. It implements [fabric.Names].
type nameServer struct{ server *names.Server }

var _ fabric.Names = nameServer{}

// Serve implements [fabric.Names]. Where the gateways are others' it serves nothing.
func (s nameServer) Serve(ctx context.Context, n vnic.Network) (bool, error) {
	if !servesNames(n) {
		return false, nil
	}
	return true, s.server.Serve(ctx, n)
}

// servesNames says whether the gateways of a network are this host's.
func servesNames(n vnic.Network) bool {
	return !n.External && !n.Unaddressed && n.Kind != vnic.KindVLAN && n.Kind != vnic.KindMacvtap
}

// Replace implements [fabric.Names].
func (s nameServer) Replace(network string, all []fabric.Named) error {
	records := make([]names.Record, 0, len(all))
	for _, p := range all {
		if r, ok := nameRecord(p); ok {
			records = append(records, r)
		}
	}
	return s.server.Replace(network, records)
}

// Put implements [fabric.Names].
func (s nameServer) Put(network string, p fabric.Named) error {
	r, ok := nameRecord(p)
	if !ok {
		return nil
	}
	return s.server.Put(network, r)
}

// Delete implements [fabric.Names].
func (s nameServer) Delete(network string, id vnic.ID) error { return s.server.Delete(network, id) }

// Stop implements [fabric.Names].
func (s nameServer) Stop(network string) { s.server.Stop(network) }

// nameRecord is what the name server is told of a pod. A hypervisor's own address has
// no name.
func nameRecord(p fabric.Named) (names.Record, bool) {
	if p.Pod == "" {
		return names.Record{}, false
	}
	r := names.Record{ID: p.ID, Names: []string{podName(p.Endpoint)}, Addresses: p.Addresses, Ready: p.Ready}
	for _, s := range p.Services {
		r.Names = append(r.Names, s.Name)
		r.Ports = append(r.Ports, names.Port{Name: s.Name, Number: s.Target, Protocol: s.Protocol})
	}
	return r, true
}

// podName returns the name that people have for a pod: of one of Kubernetes "NAMESPACE/NAME",
// for its container engine knows it by an id.
func podName(e vnic.Endpoint) string {
	name, space := e.Labels[cniapi.LabelPodName], e.Labels[cniapi.LabelPodNamespace]
	if name == "" {
		return e.Pod
	}
	if full := space + "/" + name; space != "" && vnic.CheckPodName(full) == nil {
		return full
	}
	return name
}

// resolver returns what a pod resolves names by: nothing when its network serves none.
// It asks only name servers of families that it has addresses of.
func resolver(server *names.Server, a vnic.Attachment) vnic.DNS {
	conf, err := server.ResolvConf(a.Request.Network)
	if err != nil {
		return vnic.DNS{}
	}
	dns := vnic.DNS{Search: conf.Search, Options: conf.Options}
	for _, n := range conf.Nameservers {
		if slices.ContainsFunc(a.Leases, func(p netip.Prefix) bool { return p.Addr().Is4() == n.Is4() }) {
			dns.Nameservers = append(dns.Nameservers, n)
		}
	}
	return dns
}
