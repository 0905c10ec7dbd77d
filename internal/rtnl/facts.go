package rtnl

import (
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Facts are what a link is set to, by name, in whatever form the kernel tells it.
// They are made to be compared.
type Facts map[string]string

// Differ returns the names of the facts in which f and other differ, sorted.
func (f Facts) Differ(other Facts) []string {
	var names []string
	for name, v := range f {
		if w, ok := other[name]; !ok || v != w {
			names = append(names, name)
		}
	}
	for name := range other {
		if _, ok := f[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Add takes in the facts of other.
func (f Facts) Add(other Facts) { maps.Copy(f, other) }

// fleeting are the attributes that change by themselves, count, or are where
// and how a link is known rather than what it is set to.
var fleeting = map[uint16]bool{
	unix.IFLA_IFNAME: true, unix.IFLA_STATS: true, unix.IFLA_STATS64: true, unix.IFLA_OPERSTATE: true,
	unix.IFLA_CARRIER: true, unix.IFLA_CARRIER_CHANGES: true, unix.IFLA_CARRIER_UP_COUNT: true, unix.IFLA_CARRIER_DOWN_COUNT: true,
	unix.IFLA_EVENT: true, unix.IFLA_LINK_NETNSID: true, unix.IFLA_NEW_IFINDEX: true, unix.IFLA_NEW_NETNSID: true,
}

// linkNames are the names of attributes that people may want to read.
var linkNames = map[uint16]string{
	unix.IFLA_ADDRESS: "mac", unix.IFLA_BROADCAST: "broadcast", unix.IFLA_MTU: "mtu", unix.IFLA_QDISC: "qdisc",
	unix.IFLA_MASTER: "master", unix.IFLA_TXQLEN: "txqueuelen", unix.IFLA_LINKMODE: "link mode", unix.IFLA_IFALIAS: "alias",
	unix.IFLA_GROUP: "group", unix.IFLA_PROMISCUITY: "promiscuity", unix.IFLA_ALLMULTI: "allmulti", unix.IFLA_PROTO_DOWN: "proto_down",
	unix.IFLA_GSO_MAX_SEGS: "gso_max_segs", unix.IFLA_GSO_MAX_SIZE: "gso_max_size", unix.IFLA_GRO_MAX_SIZE: "gro_max_size",
	unix.IFLA_PROP_LIST: "alternative names", unix.IFLA_XDP: "xdp", unix.IFLA_LINK: "link", unix.IFLA_MAP: "map",
}

// factIPv6 is the fact that has a link's settings for IPv6, as an array of numbers
// of 32 bits, and mtu6 the place of the MTU in it (DEVCONF_MTU6 of the kernel).
const (
	factIPv6 = "ipv6 settings"
	mtu6     = 2
)

// SetMTU makes the MTU in bytes a fact.
func (f Facts) SetMTU(mtu int) {
	v := nl.Uint32Attr(uint32(mtu))
	f[linkNames[unix.IFLA_MTU]] = string(v)
	if all := []byte(f[factIPv6]); len(all) >= 4*(mtu6+1) {
		copy(all[4*mtu6:], v)
		f[factIPv6] = string(all)
	}
}

// GetFacts asks for all attributes of the link of that name, its settings for
// IPv4 and IPv6 among them, and puts them and the link's flags into f. What
// counts, such as the traffic, is no fact, nor is the name. It also puts the link
// into l. When there is none, the error is [unix.ENODEV].
func GetFacts(f Facts, l *Link, name string) Request {
	r := GetLink(l, name)
	r.reset = func() { *l = Link{}; clear(f) }
	r.reply = func(m syscall.NetlinkMessage) (err error) {
		if *l, err = parseLink(m.Data); err != nil {
			return err
		}
		return f.readLink(m.Data)
	}
	return r
}

func (f Facts) readLink(b []byte) error {
	f["flags"] = fmt.Sprintf("%#x", nl.DeserializeIfInfomsg(b).Flags)
	attrs, err := parseAttrs(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return err
	}
	for _, a := range attrs {
		switch {
		case fleeting[a.kind]:
		case a.kind == unix.IFLA_AF_SPEC:
			f.readFamilies(a.value)
		default:
			name, ok := linkNames[a.kind]
			if !ok {
				name = fmt.Sprintf("link attribute %d", a.kind)
			}
			f[name] = string(a.value)
		}
	}
	return nil
}

// readFamilies reads what the address families keep of a link. Both tell their
// settings as arrays; statistics and times are no facts.
func (f Facts) readFamilies(b []byte) {
	eachAttr(b, func(family uint16, v []byte) {
		eachAttr(v, func(kind uint16, v []byte) {
			switch {
			case family == unix.AF_INET6 && (kind == unix.IFLA_INET6_STATS || kind == unix.IFLA_INET6_ICMP6STATS ||
				kind == unix.IFLA_INET6_CACHEINFO || kind == unix.IFLA_INET6_FLAGS):
			case family == unix.AF_INET && kind == unix.IFLA_INET_CONF:
				f["ipv4 settings"] = string(v)
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_CONF:
				f[factIPv6] = string(v)
			default:
				f[fmt.Sprintf("attribute %d of family %d", kind, family)] = string(v)
			}
		})
	})
}

// GetIngress asks whether a link has an ingress or clsact queueing discipline,
// and puts the answer into there.
func GetIngress(there *bool, index int) Request {
	const ingress = 0xfffffff1 // TC_H_INGRESS
	r := newRequest(fmt.Sprintf("look for filters of link %d", index), unix.RTM_GETQDISC, 0,
		&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: ingress}).Tolerate(unix.ENOENT, unix.EOPNOTSUPP)
	r.reset = func() { *there = false }
	r.reply = func(syscall.NetlinkMessage) error {
		*there = true
		return nil
	}
	return r
}
