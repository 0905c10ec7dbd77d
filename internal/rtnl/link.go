package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Link is a network device as a pod's side looks at it.
type Link struct {
	Index     int
	Name      string
	MAC       vnic.MAC // the one in force
	Permanent vnic.MAC // the one the device was made with; zero for most virtual devices
	Kind      string   // "veth", "bridge"…; empty for a physical device or a virtio one
	MTU       int      // bytes
	MaxMTU    int      // bytes; 0: not told
	Up        bool     // set up by the administrator
	Carrier   bool     // up, and the other side is there
	Master    int      // index of the bridge or bond it is a port of, or 0
	Group     uint32   // a number that an administrator or program gave it, or 0
	Alias     string
	AltNames  []string
	XDP       XDPMode
	TxQueue   int    // how many frames may wait to be sent, by default
	Flags     uint32 // IFF_UP and others

	moved bool // the message tells where the link went
}

// XDPMode says how an XDP program is attached to a link.
type XDPMode uint8

// How XDP programs are attached (XDP_ATTACHED_* of the kernel).
const (
	NoXDP      XDPMode = 0
	DriverXDP  XDPMode = 1
	GenericXDP XDPMode = 2
	DeviceXDP  XDPMode = 3 // the device runs it
	ManyXDP    XDPMode = 4 // several, each in another way
)

// skipStats leaves the counters out of an answer (RTEXT_FILTER_SKIP_STATS).
const skipStats = 1 << 3

// xdpAttached is the type of the attribute in IFLA_XDP that says whether and how
// a program is attached.
const xdpAttached = 2

// GetLink asks for the link of that name and puts it into l. When there is
// none, the error is [unix.ENODEV].
func GetLink(l *Link, name string) Request {
	r := getLink("look up link "+name, 0, 0)
	r.msg.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return r.into(l)
}

// GetLinkIndex asks for the link of that index and puts it into l. When there
// is none, the error is [unix.ENODEV].
func GetLinkIndex(l *Link, index int) Request {
	return getLink("look up link "+strconv.Itoa(index), 0, index).into(l)
}

// GetLinks asks for all links and puts them into ls.
func GetLinks(ls *[]Link) Request {
	r := getLink("list links", unix.NLM_F_DUMP, 0)
	r.reset = func() { *ls = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		l, err := parseLink(m.Data)
		*ls = append(*ls, l)
		return err
	}
	return r
}

func getLink(what string, flags, index int) Request {
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	return newRequest(what, unix.RTM_GETLINK, flags, info, nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
}

func (r Request) into(l *Link) Request {
	r.reset = func() { *l = Link{} }
	r.reply = func(m syscall.NetlinkMessage) (err error) {
		*l, err = parseLink(m.Data)
		return err
	}
	return r
}

// Link returns the link of that name. When there is none, the error is
// [fs.ErrNotExist].
func (c *Conn) Link(name string) (Link, error) {
	var l Link
	err := c.Do(GetLink(&l, name))
	return l, notExist(err)
}

// LinkIndex returns the link of that index. When there is none, the error is
// [fs.ErrNotExist].
func (c *Conn) LinkIndex(index int) (Link, error) {
	var l Link
	err := c.Do(GetLinkIndex(&l, index))
	return l, notExist(err)
}

// Links returns all links.
func (c *Conn) Links() ([]Link, error) {
	var ls []Link
	err := c.Do(GetLinks(&ls))
	return ls, err
}

// notExist makes the kernel's "no such device" an [fs.ErrNotExist] too.
func notExist(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// parseLink reads a struct ifinfomsg and the attributes behind it.
func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("parse link: %d bytes are too few", len(b))
	}
	info := nl.DeserializeIfInfomsg(b)
	l := Link{
		Index: int(info.Index), Flags: info.Flags, Up: info.Flags&unix.IFF_UP != 0, Carrier: info.Flags&unix.IFF_LOWER_UP != 0,
	}
	attrs, err := parseAttrs(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return Link{}, fmt.Errorf("parse link %d: %w", l.Index, err)
	}
	for _, a := range attrs {
		l.set(a.kind, a.value)
	}
	return l, nil
}

func (l *Link) set(kind uint16, v []byte) {
	switch kind {
	case unix.IFLA_IFNAME:
		l.Name = unix.ByteSliceToString(v)
	case unix.IFLA_ADDRESS:
		l.MAC = macOf(v)
	case unix.IFLA_PERM_ADDRESS:
		l.Permanent = macOf(v)
	case unix.IFLA_MTU:
		l.MTU = intOf(v)
	case unix.IFLA_MAX_MTU:
		l.MaxMTU = intOf(v)
	case unix.IFLA_NEW_NETNSID:
		l.moved = true
	case unix.IFLA_TXQLEN:
		l.TxQueue = intOf(v)
	case unix.IFLA_MASTER:
		l.Master = intOf(v)
	case unix.IFLA_GROUP:
		l.Group = uint32(intOf(v))
	case unix.IFLA_IFALIAS:
		l.Alias = unix.ByteSliceToString(v)
	case unix.IFLA_LINKINFO:
		eachAttr(v, func(k uint16, v []byte) {
			if k == unix.IFLA_INFO_KIND {
				l.Kind = unix.ByteSliceToString(v)
			}
		})
	case unix.IFLA_PROP_LIST:
		eachAttr(v, func(k uint16, v []byte) {
			if k == unix.IFLA_ALT_IFNAME {
				l.AltNames = append(l.AltNames, unix.ByteSliceToString(v))
			}
		})
	case unix.IFLA_XDP:
		eachAttr(v, func(k uint16, v []byte) {
			if k == xdpAttached && len(v) > 0 {
				l.XDP = XDPMode(v[0])
			}
		})
	}
}

func macOf(b []byte) vnic.MAC {
	if len(b) != len(vnic.MAC{}) {
		return vnic.MAC{}
	}
	return vnic.MAC(b)
}

func intOf(b []byte) int {
	if len(b) != 4 {
		return 0
	}
	return int(nl.NativeEndian().Uint32(b))
}

// HasMAC tells whether l is the device with that MAC: by its permanent one, or,
// for a device that has none, by the one in force. Devices of other kinds than
// veth never are: VLANs, bridges and the like borrow the MAC of a device below
// them, and an ipvlan even takes that for its own permanent one.
func (l Link) HasMAC(mac vnic.MAC) bool {
	switch {
	case l.Kind != "" && l.Kind != "veth":
		return false
	case !l.Permanent.IsZero():
		return l.Permanent == mac
	}
	return l.MAC == mac
}

// FindMAC returns the link that is the device with that MAC, and whether there
// is one. One that was made with it goes before one that was given it, since
// anyone may give that to a veth.
func FindMAC(ls []Link, mac vnic.MAC) (found Link, ok bool) {
	for _, l := range ls {
		switch {
		case !l.HasMAC(mac):
		case l.Permanent == mac:
			return l, true
		case !ok:
			found, ok = l, true
		}
	}
	return found, ok
}
