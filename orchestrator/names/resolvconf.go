package names

import (
	"net/netip"
	"slices"
	"strings"
)

// ResolvConf is what a pod's resolv.conf(5) says.
type ResolvConf struct {
	Nameservers []netip.Addr // the gateways
	Search      []string     // the zone of the network
	Options     []string     // ndots
}

// ndots lets a name with one dot, such as "web.shop" for the pod "shop/web", be looked
// for in the network first, and asks nobody outside for it.
const ndots = "ndots:2"

// ResolvConf returns what pods of a served network resolve names by. A pod that has
// addresses of one family only is to get the name servers of that family only.
func (s *Server) ResolvConf(network string) (ResolvConf, error) {
	sv, err := s.get(network)
	if err != nil {
		return ResolvConf{}, err
	}
	return ResolvConf{
		Nameservers: slices.Clone(sv.network.Gateways),
		Search:      []string{strings.TrimSuffix(sv.zone.apex, ".")},
		Options:     []string{ndots},
	}, nil
}
