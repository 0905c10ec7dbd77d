package rtnl

import (
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// LinkCounters are a link's counters since it was made.
type LinkCounters struct {
	Index int
	Name  string
	Kind  string // "veth", "bridge"…; empty for a physical device or a virtio one
	LinkStats
	RxMissed uint64 // packets that the device had no buffer for
}

// statsMissed is the place of rx_missed_errors in the kernel's struct
// rtnl_link_stats64, a row of 64-bit numbers.
const statsMissed = 15

// GetLinkCounters asks for the counters of all links and puts them into cs.
func GetLinkCounters(cs *[]LinkCounters) Request {
	r := newRequest("list counters of links", unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.reset = func() { *cs = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		c, err := parseLinkCounters(m.Data)
		*cs = append(*cs, c)
		return err
	}
	return r
}

func parseLinkCounters(b []byte) (LinkCounters, error) {
	l, err := parseLink(b)
	if err != nil {
		return LinkCounters{}, err
	}
	c := LinkCounters{Index: l.Index, Name: l.Name, Kind: l.Kind}
	found := false
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		if kind != unix.IFLA_STATS64 || len(v) < 8*(statsMissed+1) {
			return
		}
		found = true
		c.LinkStats, c.RxMissed = parseStats(v), nl.NativeEndian().Uint64(v[8*statsMissed:])
	})
	if !found {
		return LinkCounters{}, fmt.Errorf("parse counters of link %d: the kernel tells none", l.Index)
	}
	return c, nil
}
