package agentd

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/vnic"
)

const (
	maxNetns     = 4096
	maxReference = 512  // bytes of a container's name
	maxListed    = 1024 // addresses, routes or neighbours of one vNIC
	maxTold      = 8    // addresses of one vNIC in a list, so that the list fits into a message
)

// named is what all requests about one vNIC have.
type named interface {
	GetId() string
	GetMac() string
	GetNetns() string
	GetInterface() string
}

// target checks which vNIC and which pod a request is about. What is handed over
// has no pod that the daemon knows.
func target(req named, handover bool) (m vnic.Move, err error) {
	if m, err = which(req); err != nil {
		return m, err
	}
	m.Interface, m.Handover = req.GetInterface(), handover
	if handover && m.Netns != "" {
		return m, fmt.Errorf("netns %q of a vnic that is handed over: %w", cut(m.Netns), vnic.ErrInvalid)
	}
	if !handover {
		if err := checkNetns(m.Netns); err != nil {
			return m, err
		}
	}
	return m, vnic.CheckInterface(m.Interface)
}

// which reads which vNIC a request is about, and which pod, unchecked.
func which(req named) (m vnic.Move, err error) {
	if m.ID, err = vnic.ParseID(req.GetId()); err != nil {
		return m, err
	}
	m.Netns = req.GetNetns()
	m.MAC, err = vnic.ParseMAC(req.GetMac())
	return m, err
}

// checkNetns refuses what is neither a file's name, an absolute path nor a
// process id.
func checkNetns(s string) error {
	switch {
	case s == "" || s == "." || s == ".." || len(s) > maxNetns || strings.ContainsRune(s, 0):
		return fmt.Errorf("netns %q is no name: %w", cut(s), vnic.ErrInvalid)
	case filepath.IsAbs(s) && filepath.Clean(s) != s:
		return fmt.Errorf("netns %q is no clean path, meant %q?: %w", cut(s), cut(filepath.Clean(s)), vnic.ErrInvalid)
	case !filepath.IsAbs(s) && strings.Contains(s, "/"):
		return fmt.Errorf("netns %q is a relative path: %w", cut(s), vnic.ErrInvalid)
	}
	return nil
}

func cut(s string) string { return s[:min(len(s), 253)] }

// toRetrieval checks what a vNIC is to be retrieved as. One that was just plugged, or
// was handed over, has no pod, and what its interface was called counts for nothing.
func toRetrieval(req *agentv1.MoveRequest) (vnic.Move, error) {
	m, err := which(req)
	if err != nil {
		return m, err
	}
	if m.Netns != "" {
		if err := checkNetns(m.Netns); err != nil {
			return m, err
		}
	}
	return m, size(&m, req)
}

func toMove(req *agentv1.MoveRequest) (vnic.Move, error) {
	m, err := target(req, req.GetHandover())
	if err != nil {
		return m, err
	}
	if err := size(&m, req); err != nil {
		return m, err
	}
	if max(len(req.GetAddresses()), len(req.GetRoutes()), len(req.GetNeighbours())) > maxListed {
		return m, fmt.Errorf("more than %d addresses, routes or neighbours: %w", maxListed, vnic.ErrInvalid)
	}
	return m, lists(&m, req)
}

// size reads an order's MTU and queues.
func size(m *vnic.Move, req *agentv1.MoveRequest) error {
	m.MTU, m.Queues = int(req.GetMtu()), int(req.GetQueues())
	switch {
	case m.MTU != 0 && (m.MTU < vnic.MinMTU || m.MTU > vnic.MaxMTU):
		return fmt.Errorf("mtu %d is not in %d-%d: %w", m.MTU, vnic.MinMTU, vnic.MaxMTU, vnic.ErrInvalid)
	case m.Queues > vnic.MaxQueues:
		return fmt.Errorf("queues %d is more than %d: %w", m.Queues, vnic.MaxQueues, vnic.ErrInvalid)
	}
	return nil
}

// lists reads an order's addresses, routes and neighbours.
func lists(m *vnic.Move, req *agentv1.MoveRequest) error {
	for _, s := range req.GetAddresses() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("address: %w: %w", err, vnic.ErrInvalid)
		}
		m.Addresses = append(m.Addresses, p)
	}
	for _, r := range req.GetRoutes() {
		route, err := agentconv.ToRoute(r)
		if err != nil {
			return err
		}
		m.Routes = append(m.Routes, route)
	}
	for _, n := range req.GetNeighbours() {
		neighbour, err := toNeighbour(n)
		if err != nil {
			return err
		}
		m.Neighbours = append(m.Neighbours, neighbour)
	}
	return nil
}

func toNeighbour(n *agentv1.Neighbour) (neighbour vnic.Neighbour, err error) {
	if neighbour.Address, err = netip.ParseAddr(n.GetAddress()); err != nil {
		return neighbour, fmt.Errorf("neighbour: %w: %w", err, vnic.ErrInvalid)
	}
	if neighbour.MAC, err = vnic.ParseMAC(n.GetMac()); err != nil {
		return neighbour, fmt.Errorf("neighbour %s: %w", neighbour.Address, err)
	}
	return neighbour, nil
}

// fromNICs returns a list as it is told. A pod may have given its vNIC any name
// and any number of addresses. What the daemon would refuse is left out here, so
// that one pod can't spoil the list of all.
func fromNICs(nics []vnic.NIC) []*agentv1.NIC {
	list := make([]*agentv1.NIC, 0, len(nics))
	for _, n := range nics {
		n.Addresses = n.Addresses[:min(len(n.Addresses), maxTold)]
		list = append(list, fromNIC(n))
	}
	return list
}

func fromNIC(n vnic.NIC) *agentv1.NIC {
	m := &agentv1.NIC{
		Id: string(n.ID), Mac: n.MAC.String(), Pci: n.PCI, Driver: n.Driver,
		Interface: agentconv.Printable(n.Interface), Netns: agentconv.Printable(n.Netns), Up: n.Up,
	}
	for _, p := range n.Addresses {
		m.Addresses = append(m.Addresses, p.String())
	}
	return m
}
