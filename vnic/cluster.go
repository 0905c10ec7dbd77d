package vnic

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Hypervisor is one of several that share a store.
type Hypervisor struct {
	// Name identifies it: up to 63 letters, digits, '-', '_' and '.'. Required.
	Name string `json:"name"`
	// Underlay is its address between the hypervisors, where overlays' frames go.
	Underlay netip.Addr `json:"underlay"`
	// MTU is the largest that overlays have there, in bytes: what the underlay leaves.
	MTU int `json:"mtu,omitempty"`
	// API is where its daemon serves the others, HOST:PORT; empty: nowhere.
	API string `json:"api,omitempty"`
	// Version is that of its daemon.
	Version string `json:"version,omitempty"`
	// Boot tells the machine that its daemon runs on from others, and from its runs before:
	// what /proc/sys/kernel/random/boot_id says.
	Boot string `json:"boot,omitempty"`
	// Started is when its daemon started.
	Started time.Time `json:"started,omitzero"`
}

// CheckHypervisorName checks the name of a hypervisor. The error is [ErrInvalid].
func CheckHypervisorName(s string) error { return checkName("hypervisor", s) }

// States of hypervisors.
const (
	HypervisorAlive    = "alive"
	HypervisorDead     = "dead"     // its daemon has not renewed its word
	HypervisorReleased = "released" // dead, and what it held is given back
)

// HypervisorStatus is a hypervisor, and what the others know of it.
type HypervisorStatus struct {
	Hypervisor
	// State is [HypervisorAlive], [HypervisorDead] or [HypervisorReleased].
	State string
	// Attachments is how many vNICs of pods it has.
	Attachments int
}

// Endpoint is a pod's vNIC as all hypervisors know it.
type Endpoint struct {
	// ID is that of the attachment.
	ID ID `json:"id"`
	// Network is the network's name.
	Network string `json:"network"`
	// Hypervisor is the name of the one that it is on.
	Hypervisor string `json:"hypervisor"`
	// Underlay is that hypervisor's address; see [Hypervisor].
	Underlay netip.Addr `json:"underlay,omitzero"`
	Key
	MAC       MAC               `json:"mac"`
	Addresses []netip.Addr      `json:"addresses,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Ready says that the pod has it, with its addresses.
	Ready bool `json:"ready,omitempty"`
}

// Equal says whether e and o are the same in everything.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && e.Network == o.Network && e.Hypervisor == o.Hypervisor && e.Underlay == o.Underlay && e.Key == o.Key &&
		e.MAC == o.MAC && e.Ready == o.Ready && slices.Equal(e.Addresses, o.Addresses) && maps.Equal(e.Labels, o.Labels)
}

// Station is a MAC of an overlay that is behind another hypervisor.
type Station struct {
	MAC       MAC
	Addresses []netip.Addr
	// Via is the other hypervisor's underlay address.
	Via netip.Addr
}

// Drift counts what a reconciliation put right in the kernel's tables.
type Drift struct {
	Missing int // entries that were not there
	Wrong   int // entries that led elsewhere
	Foreign int // entries that nobody declared
}

// Total returns the sum of the three.
func (d Drift) Total() int { return d.Missing + d.Wrong + d.Foreign }

// ServiceMode says which hypervisors answer at a service's port.
type ServiceMode string

// Modes of services.
const (
	ServiceHost    ServiceMode = "host"    // those that a ready pod of the service is on
	ServiceIngress ServiceMode = "ingress" // all
)

// Service makes a port of pods reachable by a port of the hypervisors.
type Service struct {
	// Name identifies it. Default: "PORT-PROTOCOL".
	Name string `json:"name"`
	// Network is the network of the pods. Required.
	Network string `json:"network"`
	// Protocol is [TCP] or [UDP]. Required.
	Protocol string `json:"protocol"`
	// Port is the hypervisors' port. Required.
	Port uint16 `json:"port"`
	// Target is the pods' port. Required.
	Target uint16 `json:"target"`
	// Pod or Labels select the pods: those of that name, or those that have all of
	// the labels. Just one of them is given.
	Pod    string            `json:"pod,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Mode says which hypervisors answer. Default: [ServiceIngress].
	Mode ServiceMode `json:"mode"`
}

// Backend is a service with where it leads to from one hypervisor.
type Backend struct {
	Service
	Targets []Target
}

// Target is a pod's port.
type Target struct {
	To netip.AddrPort
	// Local says that the pod is on this hypervisor.
	Local bool
}

// Complete returns s with its defaults filled in, or the first thing that is wrong
// with it as an [ErrInvalid].
func (s Service) Complete() (Service, error) {
	if s.Mode == "" {
		s.Mode = ServiceIngress
	}
	if s.Name == "" {
		s.Name = fmt.Sprintf("%d-%s", s.Port, s.Protocol)
	}
	if err := checkName("service", s.Name); err != nil {
		return s, err
	}
	if err := CheckNetworkName(s.Network); err != nil {
		return s, fmt.Errorf("service %s: %w", s.Name, err)
	}
	switch {
	case s.Port == 0 || s.Target == 0:
		return s, fmt.Errorf("service %s: port 0 is none: %w", s.Name, ErrInvalid)
	case s.Protocol != TCP && s.Protocol != UDP:
		return s, fmt.Errorf("service %s: protocol %q is not tcp or udp: %w", s.Name, s.Protocol, ErrInvalid)
	case s.Mode != ServiceHost && s.Mode != ServiceIngress:
		return s, fmt.Errorf("service %s: mode %q is not host or ingress: %w", s.Name, s.Mode, ErrInvalid)
	case (s.Pod == "") == (len(s.Labels) == 0):
		return s, fmt.Errorf("service %s: give a pod's name or labels, one of the two: %w", s.Name, ErrInvalid)
	case s.Pod != "":
		return s, CheckPodName(s.Pod)
	}
	return s, CheckLabels(s.Labels)
}

// Equal says whether s and o are the same in everything.
func (s Service) Equal(o Service) bool {
	return s.Name == o.Name && s.Network == o.Network && s.Protocol == o.Protocol && s.Port == o.Port && s.Target == o.Target &&
		s.Pod == o.Pod && s.Mode == o.Mode && maps.Equal(s.Labels, o.Labels)
}

// Where returns the hypervisors' side, "PORT/PROTOCOL".
func (s Service) Where() string { return fmt.Sprintf("%d/%s", s.Port, s.Protocol) }

// Selects says whether an endpoint's pod is one of the service.
func (s Service) Selects(e Endpoint) bool {
	if e.Network != s.Network {
		return false
	}
	if s.Pod != "" {
		return e.Pod == s.Pod
	}
	for k, v := range s.Labels {
		if got, ok := e.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
