package rtnl

import (
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Qdisc is a queueing discipline with its counters, since it was made.
type Qdisc struct {
	Index          int // of its link
	Kind           string
	Handle, Parent uint32
	Bytes, Packets uint64
	Drops          uint32
	Overlimits     uint32
	Requeues       uint32
	Waiting        uint32 // frames in it
	Backlog        uint32 // bytes in it
}

// GetQdiscs asks for the queueing disciplines of all links and puts them into qs.
func GetQdiscs(qs *[]Qdisc) Request {
	r := newRequest("list queueing disciplines", unix.RTM_GETQDISC, unix.NLM_F_DUMP, &nl.TcMsg{Family: unix.AF_UNSPEC}).
		Tolerate(unix.EOPNOTSUPP) // a kernel without any
	r.reset = func() { *qs = nil }
	r.reply = func(m syscall.NetlinkMessage) error {
		q, err := parseQdisc(m.Data)
		*qs = append(*qs, q)
		return err
	}
	return r
}

// parseQdisc reads a struct tcmsg and the attributes behind it.
func parseQdisc(b []byte) (Qdisc, error) {
	if len(b) < nl.SizeofTcMsg {
		return Qdisc{}, fmt.Errorf("parse queueing discipline: %d bytes are too few", len(b))
	}
	msg := nl.DeserializeTcMsg(b)
	q := Qdisc{Index: int(msg.Ifindex), Handle: msg.Handle, Parent: msg.Parent}
	attrs, err := parseAttrs(b[nl.SizeofTcMsg:])
	if err != nil {
		return Qdisc{}, fmt.Errorf("parse queueing discipline of link %d: %w", q.Index, err)
	}
	for _, a := range attrs {
		switch a.kind {
		case nl.TCA_KIND:
			q.Kind = unix.ByteSliceToString(a.value)
		case nl.TCA_STATS2:
			eachAttr(a.value, q.stats)
		}
	}
	return q, nil
}

// stats reads a struct gnet_stats_basic, its packets in 64 bits, or a struct
// gnet_stats_queue.
func (q *Qdisc) stats(kind uint16, b []byte) {
	order := nl.NativeEndian()
	switch {
	case kind == nl.TCA_STATS_BASIC && len(b) >= 12:
		q.Bytes = order.Uint64(b)
		q.Packets = max(q.Packets, uint64(order.Uint32(b[8:])))
	case kind == nl.TCA_STATS_PKT64 && len(b) >= 8:
		q.Packets = order.Uint64(b)
	case kind == nl.TCA_STATS_QUEUE && len(b) >= 20:
		for i, to := range []*uint32{&q.Waiting, &q.Backlog, &q.Drops, &q.Requeues, &q.Overlimits} {
			*to = order.Uint32(b[4*i:])
		}
	}
}

// Where filters of a clsact queueing discipline are (TC_H_MIN_INGRESS and
// TC_H_MIN_EGRESS of the kernel).
const (
	FiltersIn  uint32 = 0xfffffff2
	FiltersOut uint32 = 0xfffffff3
)

// GetFilters asks how many filters a link has at one place, such as [FiltersIn], by
// kind, and puts the numbers into n.
func GetFilters(n map[string]int, index int, parent uint32) Request {
	r := newRequest(fmt.Sprintf("list filters of link %d", index), unix.RTM_GETTFILTER, unix.NLM_F_DUMP,
		&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent}).Tolerate(unix.EINVAL, unix.EOPNOTSUPP)
	r.reset = func() { clear(n) }
	r.reply = func(m syscall.NetlinkMessage) error {
		if len(m.Data) < nl.SizeofTcMsg || nl.DeserializeTcMsg(m.Data).Handle == 0 { // a chain's head, and no filter
			return nil
		}
		eachAttr(m.Data[nl.SizeofTcMsg:], func(kind uint16, v []byte) {
			if kind == nl.TCA_KIND {
				n[unix.ByteSliceToString(v)]++
			}
		})
		return nil
	}
	return r
}
