package vnic

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Phase is how far an attachment has come. It is written to the store before
// the side effects that lead to the next phase begin, so after a crash it tells
// which of them may have happened.
type Phase string

// Phases of an attachment, in the order in which it passes through them.
const (
	PhaseRequested Phase = "requested" // accepted; nothing is held
	PhaseLeased    Phase = "leased"    // MAC and addresses are held; the host may be plugging
	PhasePlugged   Phase = "plugged"   // the hypervisor has the device; the guest may be moving it
	PhaseMoved     Phase = "moved"     // the vNIC is in the pod; the guest may be configuring it
	PhaseReady     Phase = "ready"     // addresses, routes and link are up
	PhaseDetaching Phase = "detaching" // being undone, step by step
	PhaseReleased  Phase = "released"  // all is given back; the record is about to go, or gone
)

// Key is what an attachment is asked for by: one interface of one pod in one VM.
type Key struct {
	VM        string `json:"vm"`
	Pod       string `json:"pod"`
	Interface string `json:"interface"`
}

// String returns "vm/pod/interface".
func (k Key) String() string { return k.VM + "/" + k.Pod + "/" + k.Interface }

// Validate returns the first thing that is wrong with k as an [ErrInvalid].
func (k Key) Validate() error {
	if err := CheckVMName(k.VM); err != nil {
		return err
	}
	if err := CheckPodName(k.Pod); err != nil {
		return err
	}
	return CheckInterface(k.Interface)
}

// Request asks for an attachment.
type Request struct {
	Key
	// Network is the network's name. Required.
	Network string `json:"network"`
	// Netns is the pod's namespace as the guest knows it: a name in /run/netns,
	// an absolute path, or a process id. Default: the pod's name.
	Netns string `json:"netns"`
	// Addresses are wanted addresses, at most one a family. Default: any free ones.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Exact leases the wanted addresses and no others: a family of which none is
	// wanted has none. Default: one of each of the network's subnets.
	Exact bool `json:"exact,omitempty"`
	// MAC is the wanted MAC. Default: a random locally administered one.
	MAC MAC `json:"mac,omitzero"`
	// Queues is the number of receive and transmit queue pairs. Default: 1.
	Queues int `json:"queues"`
	// MTU in bytes. Default: the network's; it can't be larger than that.
	MTU int `json:"mtu"`
	// NoDefaultRoute leaves out the default routes over the network's gateways.
	// Set it for all but one interface of a pod.
	NoDefaultRoute bool `json:"noDefaultRoute,omitempty"`
	// Routes are the pod's beside the default routes and those to the subnets.
	Routes []Route `json:"routes,omitempty"`
	// Handover leaves the vNIC in the guest's first namespace, down and named by
	// [ID.LinkName], for a container engine that moves it by itself. It has no
	// Netns then, and Interface only tells apart the vNICs of the pod.
	Handover bool `json:"handover,omitempty"`
	// Ports of the pod are reached by ports of the hypervisor.
	Ports []PortMapping `json:"ports,omitempty"`
	// Bandwidth limits what the pod sends and receives. Default: no limit.
	Bandwidth Bandwidth `json:"bandwidth,omitzero"`
	// Manager is who asked for it: "cni" and "docker" in a guest, or empty for
	// the daemon's API.
	Manager string `json:"manager,omitempty"`
	// Labels are the manager's own, such as the names that Kubernetes has for the
	// pod. See [CheckLabels].
	Labels map[string]string `json:"labels,omitempty"`
}

// MaxQueues is the most queue pairs that a tap has (MAX_TAP_QUEUES in the
// kernel's drivers/net/tap.c).
const MaxQueues = 256

// Complete returns r with its defaults filled in, or the first thing that is
// wrong with it as an [ErrInvalid]. The default of MTU is the network's and
// stays 0 here.
func (r Request) Complete() (Request, error) {
	if err := r.Validate(); err != nil {
		return r, err
	}
	if err := CheckNetworkName(r.Network); err != nil {
		return r, err
	}
	switch {
	case r.Handover && r.Netns != "":
		return r, fmt.Errorf("netns %q: a vnic that is handed over has none: %w", r.Netns, ErrInvalid)
	case !r.Handover && r.Netns == "":
		r.Netns = r.Pod
	}
	if r.Queues == 0 {
		r.Queues = 1
	}
	if r.Queues < 1 || r.Queues > MaxQueues {
		return r, fmt.Errorf("queues %d is not in 1-%d: %w", r.Queues, MaxQueues, ErrInvalid)
	}
	if r.MTU != 0 && (r.MTU < MinMTU || r.MTU > MaxMTU) {
		return r, fmt.Errorf("mtu %d is not in %d-%d: %w", r.MTU, MinMTU, MaxMTU, ErrInvalid)
	}
	if r.Exact && len(r.Addresses) == 0 {
		return r, fmt.Errorf("no address is wanted, and none but those: %w", ErrInvalid)
	}
	if err := r.checkOptions(); err != nil {
		return r, err
	}
	for i, a := range r.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return r, fmt.Errorf("address %q: give a plain IPv4 or IPv6 address: %w", a, ErrInvalid)
		}
		for _, b := range r.Addresses[:i] {
			if a.Is4() == b.Is4() {
				return r, fmt.Errorf("two addresses of one family, %s and %s: %w", b, a, ErrInvalid)
			}
		}
	}
	return r, nil
}

// Attachment is the record of one vNIC, from the request until it is gone.
type Attachment struct {
	ID ID `json:"id"`
	// Device is the vNIC's own id, when that is not the attachment's: a vNIC that
	// was parked in a pool keeps its id from one attachment to the next. See
	// [Attachment.VNIC].
	Device ID `json:"device,omitempty"`
	// Request is what was asked for, completed.
	Request Request `json:"request"`
	Phase   Phase   `json:"phase"`
	// MAC is the leased MAC.
	MAC MAC `json:"mac,omitzero"`
	// MTU is the one in force, in bytes.
	MTU int `json:"mtu"`
	// Leases are the leased addresses with their network's prefix length.
	Leases []netip.Prefix `json:"leases,omitempty"`
	// Gateways are those of the leases' subnets, in the order of Leases.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// DNS is what the pod resolves names by, where the network's gateways serve names.
	// It is not stored.
	DNS DNS `json:"dns,omitzero"`
	// GuestPCI is the device's address as the guest sees it, once it has moved.
	GuestPCI string `json:"guestPCI,omitempty"`
	// Slot is where the hypervisor plugged it: "bus/device", once plugged.
	Slot    string    `json:"slot,omitempty"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	// Timings tell how long each step of the attach took, in order.
	Timings []Timing `json:"timings,omitempty"`
	// LastError is why the last step failed, for attachments that are being undone.
	LastError string `json:"lastError,omitempty"`
}

// DNS is what a resolver's configuration says, as resolv.conf(5) has it.
type DNS struct {
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
	Search      []string     `json:"search,omitempty"`
	Options     []string     `json:"options,omitempty"`
}

// VNIC returns the id of the attachment's vNIC, which tap and devices are named
// by: the attachment's own, unless the vNIC comes from a pool.
func (a Attachment) VNIC() ID { return cmp.Or(a.Device, a.ID) }

// Routes returns the routes that the pod gets beside those to its subnets, which
// come with the addresses: for each family a default route over the gateway, unless
// the request has one of its own or does without, and those of the request.
func (a Attachment) Routes() []Route {
	var list []Route
	for _, gw := range a.Gateways {
		if a.Request.NoDefaultRoute || !gw.IsValid() {
			continue
		}
		to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if !slices.ContainsFunc(a.Request.Routes, func(r Route) bool { return r.Destination == to }) {
			list = append(list, Route{Destination: to, Gateway: gw})
		}
	}
	return append(list, a.Request.Routes...)
}

// Timing is the duration of one step of an attach or detach.
type Timing struct {
	Step     string        `json:"step"`
	Duration time.Duration `json:"nanoseconds"`
}
