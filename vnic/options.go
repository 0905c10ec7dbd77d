package vnic

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Protocols of published ports.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
)

// PortMapping makes a port of a pod reachable by a port of the hypervisor.
type PortMapping struct {
	// HostIP is the hypervisor's address. Default: all of them of the families
	// that the pod has addresses of.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// HostPort is the hypervisor's port. Required.
	HostPort uint16 `json:"hostPort"`
	// Port is the pod's. Required.
	Port uint16 `json:"port"`
	// Protocol is [TCP], [UDP] or [SCTP]. Required.
	Protocol string `json:"protocol"`
}

// String returns "HOSTIP:HOSTPORT:PORT/PROTOCOL", without the address when it is any.
func (m PortMapping) String() string {
	s := fmt.Sprintf("%d:%d/%s", m.HostPort, m.Port, m.Protocol)
	if !m.HostIP.IsValid() {
		return s
	}
	if m.HostIP.Is6() {
		return fmt.Sprintf("[%s]:%s", m.HostIP, s)
	}
	return m.HostIP.String() + ":" + s
}

// Overlaps says whether no two pods can have m and o at once.
func (m PortMapping) Overlaps(o PortMapping) bool {
	return m.Protocol == o.Protocol && m.HostPort == o.HostPort &&
		(!m.HostIP.IsValid() || !o.HostIP.IsValid() || m.HostIP == o.HostIP)
}

// Validate returns the first thing that is wrong with m as an [ErrInvalid].
func (m PortMapping) Validate() error {
	switch {
	case m.HostPort == 0 || m.Port == 0:
		return fmt.Errorf("port mapping %s: port 0 is none: %w", m, ErrInvalid)
	case m.Protocol != TCP && m.Protocol != UDP && m.Protocol != SCTP:
		return fmt.Errorf("port mapping %s: protocol %q is not tcp, udp or sctp: %w", m, m.Protocol, ErrInvalid)
	case m.HostIP.IsValid() && (m.HostIP.Is4In6() || m.HostIP.Zone() != "" || m.HostIP.IsUnspecified() || m.HostIP.IsLoopback()):
		return fmt.Errorf("port mapping %s: %s is no address that others reach the host by: %w", m, m.HostIP, ErrInvalid)
	}
	return nil
}

// Bandwidth limits a pod's traffic, each direction by itself. A zero rate is no limit.
// Egress is policed by a bucket that holds a second's worth of the rate at the least,
// so a smaller burst has no effect there.
type Bandwidth struct {
	Ingress Rate `json:"ingress,omitzero"` // to the pod
	Egress  Rate `json:"egress,omitzero"`  // from the pod
}

// Rate is a limit: Bits per second, and Burst bits at once beyond it. Default of
// Burst: as much as a tenth of a second takes.
type Rate struct {
	Bits  uint64 `json:"bitsPerSecond"`
	Burst uint64 `json:"burstBits,omitempty"`
}

// Limits of rates. The smallest lets a full frame pass now and then.
const (
	MinRate = 8_000             // bits per second
	MaxRate = 1_000_000_000_000 // bits per second
)

func (r Rate) validate(what string) error {
	switch {
	case r.Bits == 0 && r.Burst != 0:
		return fmt.Errorf("%s burst of %d bits without a rate: %w", what, r.Burst, ErrInvalid)
	case r.Bits != 0 && (r.Bits < MinRate || r.Bits > MaxRate):
		return fmt.Errorf("%s rate of %d bits per second is not in %d-%d: %w", what, r.Bits, uint64(MinRate), uint64(MaxRate), ErrInvalid)
	case r.Burst > MaxRate:
		return fmt.Errorf("%s burst of %d bits is more than %d: %w", what, r.Burst, uint64(MaxRate), ErrInvalid)
	}
	return nil
}

// Validate returns the first thing that is wrong with b as an [ErrInvalid].
func (b Bandwidth) Validate() error {
	if err := b.Ingress.validate("ingress"); err != nil {
		return err
	}
	return b.Egress.validate("egress")
}

// Limits of what a request may carry.
const (
	MaxPorts  = 256
	MaxRoutes = 256
	maxLabels = 32
	maxLabel  = 512 // bytes of a label's key and value
)

// CheckLabels checks labels: at most 32, each with a key, printable, of at most
// 512 bytes together. The error is [ErrInvalid].
func CheckLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("%d labels are more than %d: %w", len(labels), maxLabels, ErrInvalid)
	}
	for k, v := range labels {
		if k == "" || len(k)+len(v) > maxLabel || strings.ContainsFunc(k+v, unprintable) {
			return fmt.Errorf("label %.64q=%.64q: empty key, unprintable, or longer than %d bytes: %w", k, v, maxLabel, ErrInvalid)
		}
	}
	return nil
}

// unprintable says what would spoil a terminal or a table, be it by control codes
// or by turning text around. Bytes that are not UTF-8 are read as U+FFFD.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// checkOptions checks what a request may have beside its vNIC.
func (r Request) checkOptions() error {
	if len(r.Ports) > MaxPorts || len(r.Routes) > MaxRoutes {
		return fmt.Errorf("%d ports and %d routes: more than %d and %d: %w", len(r.Ports), len(r.Routes), MaxPorts, MaxRoutes, ErrInvalid)
	}
	for i, m := range r.Ports {
		if err := m.Validate(); err != nil {
			return err
		}
		for _, o := range r.Ports[:i] {
			if m.Overlaps(o) {
				return fmt.Errorf("port mappings %s and %s overlap: %w", o, m, ErrInvalid)
			}
		}
	}
	for _, route := range r.Routes {
		if err := route.Validate(); err != nil {
			return err
		}
	}
	if err := r.Bandwidth.Validate(); err != nil {
		return err
	}
	if len(r.Manager) > 63 || strings.Trim(r.Manager, nameChars) != "" {
		return fmt.Errorf("manager %.64q: use letters, digits, '-', '_' and '.': %w", r.Manager, ErrInvalid)
	}
	return CheckLabels(r.Labels)
}
