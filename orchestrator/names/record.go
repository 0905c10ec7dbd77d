package names

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// Record is what the server knows of an attachment.
type Record struct {
	// ID is that of the attachment. Required.
	ID vnic.ID
	// Names are what it is found by, as [Label] maps them: the pod's, and those of
	// services that it is a replica of. The first is what its addresses resolve to.
	Names []string
	// Addresses are the pod's in this network.
	Addresses []netip.Addr
	// Ports are those that it publishes.
	Ports []Port
	// Ready says that it takes traffic. What isn't ready has its name, without data.
	Ready bool
}

// Port is a port of a pod.
type Port struct {
	// Name is what the port is found by beside its number, such as "http". Optional.
	Name string
	// Number is the pod's port, not the hypervisor's.
	Number uint16
	// Protocol is [vnic.TCP], [vnic.UDP] or [vnic.SCTP].
	Protocol string
}

func (r Record) clone() Record {
	r.Names = slices.Clone(r.Names)
	r.Addresses = slices.Clone(r.Addresses)
	r.Ports = slices.Clone(r.Ports)
	return r
}

func (r Record) equal(o Record) bool {
	return r.ID == o.ID && r.Ready == o.Ready && slices.Equal(r.Names, o.Names) &&
		slices.Equal(r.Addresses, o.Addresses) && slices.Equal(r.Ports, o.Ports)
}

// labels returns the port's label by its number, and by its name when it has one that
// can be served, and whether nothing was left out.
func (p Port) labels() (labels []string, all bool) {
	proto := strings.ToLower(p.Protocol)
	if p.Number == 0 || checkLabel(proto) != nil || len(proto) == 63 {
		return nil, false
	}
	labels = []string{"_" + strconv.Itoa(int(p.Number)) + "._" + proto}
	if p.Name == "" {
		return labels, true
	}
	name := strings.ToLower(p.Name)
	if checkLabel(name) != nil || len(name) == 63 {
		return labels, false
	}
	if named := "_" + name + "._" + proto; named != labels[0] {
		labels = append(labels, named)
	}
	return labels, true
}
