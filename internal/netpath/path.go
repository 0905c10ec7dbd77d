package netpath

import "net/netip"

// Path is what a packet crosses on one machine.
type Path struct {
	// Taken is when it was, in nanoseconds since the machine's boot: rates are by
	// the machine's own clock.
	Taken      int64       `json:"takenNanos"`
	Namespaces []Namespace `json:"namespaces"`
	// Hops are in the order of a packet that leaves the pod.
	Hops []Hop `json:"hops"`
	// End says where the walk ended and why.
	End string `json:"end"`
	// Notes are for people: what could not be learned.
	Notes []string `json:"notes,omitempty"`
}

// Namespace is a network namespace on the way.
type Namespace struct {
	// Name is what it was asked for by, or a path by which it was found; "self": Own.
	Name string `json:"name"`
	// Own: it is that of the program that looked: the first one, of a guest.
	Own          bool       `json:"own,omitempty"`
	Forwarding   bool       `json:"forwarding"`   // of IPv4
	Forwarding6  bool       `json:"forwarding6"`  // of IPv6
	BridgeFilter bool       `json:"bridgeFilter"` // bridged IPv4 packets cross the hooks of inet, too (br_netfilter)
	Legacy       []string   `json:"legacy,omitempty"`
	Conntrack    *Conntrack `json:"conntrack,omitempty"` // nil: the module is not there
}

// self is the name of a program's own namespace.
const self = "self"

// Conntrack is the connection tracking of a namespace.
type Conntrack struct {
	// Used: a rule needs it, so that packets of all connections go through it.
	Used    bool   `json:"used"`
	Entries uint64 `json:"entries"`
	Max     uint64 `json:"max"`
}

// Hop is one thing on the way. Just one of Device, Hook and Route is there.
type Hop struct {
	Namespace int     `json:"namespace"` // index in Path.Namespaces
	Device    *Device `json:"device,omitempty"`
	Hook      *Hook   `json:"hook,omitempty"`
	Route     *Route  `json:"route,omitempty"`
}

// Direction is which packets cross a hook.
type Direction string

// Directions.
const (
	Out  Direction = "out"  // those that leave the pod
	In   Direction = "in"   // those that come in
	Both Direction = "both" // forwarded ones, both ways
)

// Hook is a place where base chains of nftables are called, in their order.
type Hook struct {
	Name      string    `json:"name"`   // "prerouting", "input", "forward", "output" or "postrouting"
	Bridge    bool      `json:"bridge"` // of the family bridge, else of ip, ip6 and inet
	Direction Direction `json:"direction"`
	Chains    []Chain   `json:"chains"`
}

// Chain is a base chain of nftables, with the chains that it calls.
type Chain struct {
	Family    string `json:"family"`
	Table     string `json:"table"`
	Name      string `json:"name"`
	Hook      string `json:"hook"`
	Device    string `json:"device,omitempty"` // of the family netdev
	Type      string `json:"type"`             // "filter", "nat" or "route"
	Priority  int    `json:"priority"`
	Policy    string `json:"policy"`
	Rules     int    `json:"rules"`  // with those of the chains that it calls
	Called    int    `json:"called"` // how many chains it calls, directly or not
	NAT       bool   `json:"nat,omitempty"`
	Conntrack bool   `json:"conntrack,omitempty"`
	// Counters are those of rules that have one, in order.
	Counters []RuleCounter `json:"counters,omitempty"`
	// Uncounted is how many more counters there are.
	Uncounted int `json:"uncounted,omitempty"`
}

// RuleCounter is a counter in a rule.
type RuleCounter struct {
	Chain string `json:"chain"`
	Rule  int    `json:"rule"`           // the how-manieth of its chain, from 1
	Name  string `json:"name,omitempty"` // of a named counter
	Does  string `json:"does"`           // "accept", "drop", "jump X", "masquerade"…
	Drops bool   `json:"drops,omitempty"`
	Count Count  `json:"count"`
}

// Route is the kernel's decision where to send a packet.
type Route struct {
	To         string     `json:"to"` // "default" or an address
	Gateway    netip.Addr `json:"gateway,omitzero"`
	Device     string     `json:"device"`
	Forwarding bool       `json:"forwarding"`      // the packet is not of this namespace: it needs Namespace.Forwarding
	Outer      bool       `json:"outer,omitempty"` // it is a tunnel's packet
}

// Device is a network device. Its counters are since it was made.
type Device struct {
	Name      string   `json:"name"`
	Index     int      `json:"index"`
	Kind      string   `json:"kind"` // "veth", "bridge", "vxlan", "tun"…, and "nic" for what no program made
	Driver    string   `json:"driver,omitempty"`
	Bus       string   `json:"bus,omitempty"` // PCI address
	MAC       string   `json:"mac"`
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	Carrier   bool     `json:"carrier"`
	Master    string   `json:"master,omitempty"`
	Queues    int      `json:"queues,omitempty"`    // queue pairs in use, as far as the driver tells
	MaxQueues int      `json:"maxQueues,omitempty"` // that it could use
	Vectors   int      `json:"vectors,omitempty"`   // interrupt vectors, of a PCI device
	Offloads  []string `json:"offloads,omitempty"`
	Programs  []string `json:"programs,omitempty"` // XDP, TCX and tc filters
	VXLAN     *VXLAN   `json:"vxlan,omitempty"`
	Tap       *Tap     `json:"tap,omitempty"`
	RX        Count    `json:"rx"` // as the device's own namespace sees it
	TX        Count    `json:"tx"`
	Qdiscs    []Qdisc  `json:"qdiscs,omitempty"`
	Chains    []Chain  `json:"chains,omitempty"` // of the family netdev, and of ingress of inet
}

// VXLAN is what a VXLAN device is set to.
type VXLAN struct {
	VNI    uint32     `json:"vni"`
	Port   uint16     `json:"port"`
	Local  netip.Addr `json:"local,omitzero"`
	Remote netip.Addr `json:"remote,omitzero"`
}

// Tap is what a tap has.
type Tap struct {
	VnetHdr bool `json:"vnetHdr"` // offloads can reach the guest
	Queues  int  `json:"queues"`  // that are open
	// Vhost says who copies packets: "kernel" (vhost), "qemu", or "" when that is not known.
	Vhost string `json:"vhost,omitempty"`
}

// Qdisc is a queueing discipline.
type Qdisc struct {
	Kind     string `json:"kind"`
	Handle   string `json:"handle"`
	Parent   string `json:"parent"`
	Sent     Count  `json:"sent"` // and what it dropped
	Requeues uint64 `json:"requeues"`
	Waiting  uint64 `json:"waiting"` // frames in it now
	Backlog  uint64 `json:"backlog"` // bytes in it now
}

// Count is a counter of packets.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Drops   uint64 `json:"drops,omitempty"`
	Errors  uint64 `json:"errors,omitempty"`
	// Since is what it was between two looks; see [Report.Since].
	Since *Change `json:"since,omitempty"`
}

// Change is how much a counter grew between two looks.
type Change struct {
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
	Drops            uint64  `json:"drops,omitempty"`
	Errors           uint64  `json:"errors,omitempty"`
}

// Report is a pod's path on both sides.
type Report struct {
	VM        string `json:"vm"`
	Pod       string `json:"pod"`
	Interface string `json:"interface"`
	// Fused: brfuse attached the interface. Else it is nested, or the VM's own.
	Fused bool `json:"fused"`
	// Attachment is its id, when it is fused.
	Attachment string   `json:"attachment,omitempty"`
	Guest      *Path    `json:"guest,omitempty"`
	Host       *Path    `json:"host,omitempty"`
	Notes      []string `json:"notes,omitempty"`
	// Seconds between the two looks, on the guest's clock; 0: there was one only.
	Seconds float64 `json:"seconds,omitempty"`
}

// Last returns the device by which a packet leaves the machine, or nil when the
// walk didn't come to one.
func (p *Path) Last() *Device {
	if p == nil || len(p.Hops) == 0 {
		return nil
	}
	return p.Hops[len(p.Hops)-1].Device
}

// Next returns where a packet is sent to beyond the machine, by the last route on the
// way: its destination, invalid for a default route, and the gateway, invalid when the
// destination is a neighbour.
func (p *Path) Next() (to, gateway netip.Addr) {
	if p == nil {
		return to, gateway
	}
	for _, h := range p.Hops {
		if h.Route != nil {
			to, _ = netip.ParseAddr(h.Route.To) // invalid: "default"
			gateway = h.Route.Gateway
		}
	}
	return to, gateway
}
