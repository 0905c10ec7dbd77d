package netcost

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// Protocol is what the protocols of a namespace have counted.
type Protocol struct {
	Namespace string `json:"namespace"` // as in [Options]
	IP        IP     `json:"ip"`
	TCP       TCP    `json:"tcp"`
	UDP       UDP    `json:"udp"`
}

// IP has counters of IPv4 and IPv6 together (RFC 4293), in packets.
type IP struct {
	Delivered    uint64 `json:"delivered"`
	Forwarded    uint64 `json:"forwarded"`
	InDiscarded  uint64 `json:"inDiscarded"`
	OutDiscarded uint64 `json:"outDiscarded"`
	Unroutable   uint64 `json:"unroutable"`
}

// TCP has counters of RFC 4022 and of Linux, in segments where nothing else is said.
type TCP struct {
	ActiveOpens       uint64 `json:"activeOpens"`  // connections
	PassiveOpens      uint64 `json:"passiveOpens"` // connections
	InSegments        uint64 `json:"inSegments"`
	OutSegments       uint64 `json:"outSegments"` // without those sent again
	Retransmitted     uint64 `json:"retransmitted"`
	Timeouts          uint64 `json:"timeouts"` // retransmission timeouts
	InErrors          uint64 `json:"inErrors"`
	OutResets         uint64 `json:"outResets"`
	ListenDrops       uint64 `json:"listenDrops"` // connections
	BacklogDrops      uint64 `json:"backlogDrops"`
	ReceiveQueueDrops uint64 `json:"receiveQueueDrops"`
}

// UDP has counters of IPv4 and IPv6 together (RFC 4113), in datagrams.
type UDP struct {
	In            uint64 `json:"in"`
	Out           uint64 `json:"out"`
	NoPort        uint64 `json:"noPort"`
	InErrors      uint64 `json:"inErrors"`      // ReceiveBuffer included
	ReceiveBuffer uint64 `json:"receiveBuffer"` // dropped: the socket's buffer was full
	SendBuffer    uint64 `json:"sendBuffer"`
}

// readProtocol reads the counters of the namespace in which the calling thread is.
// The files of "self" would be those of the process's first thread.
func readProtocol(proc fs.FS, namespace string) (Protocol, error) {
	const dir = "thread-self/net/"
	counts := snmp{}
	for _, f := range []struct {
		name     string
		parse    func([]byte) error
		optional bool
	}{
		{"snmp", counts.parse, false},
		{"netstat", counts.parse, false},
		{"snmp6", counts.parse6, true}, // a kernel without IPv6 has none
	} {
		b, err := fs.ReadFile(proc, dir+f.name)
		if f.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.parse(b)
		}
		if err != nil {
			return Protocol{}, fmt.Errorf("read %s/%s%s: %w", procFS, dir, f.name, err)
		}
	}
	return counts.protocol(namespace), nil
}

// snmp are counters by name, such as "Tcp.RetransSegs" and "Udp6InErrors".
type snmp map[string]uint64

// parse reads /proc/net/snmp and /proc/net/netstat: pairs of lines that begin with
// the same word, names on the first and numbers on the second.
func (s snmp) parse(b []byte) error {
	var names [][]byte
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		switch {
		case len(f) == 0:
		case names == nil:
			names = f
		case !bytes.Equal(names[0], f[0]) || len(names) != len(f):
			return fmt.Errorf("%d names of %s, and %d numbers of %s", len(names)-1, names[0], len(f)-1, f[0])
		default:
			group := string(bytes.TrimSuffix(f[0], []byte(":")))
			for i, v := range f[1:] {
				if err := s.set(group+"."+string(names[i+1]), v); err != nil {
					return err
				}
			}
			names = nil
		}
	}
	if names != nil {
		return fmt.Errorf("%s has names and no numbers", names[0])
	}
	return nil
}

// parse6 reads /proc/net/snmp6: a name and a number on each line.
func (s snmp) parse6(b []byte) error {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) != 2 {
			return fmt.Errorf("%d columns, not 2", len(f))
		}
		if err := s.set(string(f[0]), f[1]); err != nil {
			return err
		}
	}
	return nil
}

// set takes in one counter. What is negative is a setting.
func (s snmp) set(name string, v []byte) error {
	if bytes.HasPrefix(v, []byte("-")) {
		return nil
	}
	n, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil {
		return fmt.Errorf("counter %s: %w", name, err)
	}
	s[name] = n
	return nil
}

func (s snmp) protocol(namespace string) Protocol {
	return Protocol{
		Namespace: namespace,
		IP: IP{
			Delivered:    s["Ip.InDelivers"] + s["Ip6InDelivers"],
			Forwarded:    s["Ip.ForwDatagrams"] + s["Ip6OutForwDatagrams"],
			InDiscarded:  s["Ip.InDiscards"] + s["Ip6InDiscards"],
			OutDiscarded: s["Ip.OutDiscards"] + s["Ip6OutDiscards"],
			Unroutable:   s["Ip.OutNoRoutes"] + s["Ip6OutNoRoutes"],
		},
		TCP: TCP{
			ActiveOpens: s["Tcp.ActiveOpens"], PassiveOpens: s["Tcp.PassiveOpens"],
			InSegments: s["Tcp.InSegs"], OutSegments: s["Tcp.OutSegs"],
			Retransmitted: s["Tcp.RetransSegs"], Timeouts: s["TcpExt.TCPTimeouts"],
			InErrors: s["Tcp.InErrs"], OutResets: s["Tcp.OutRsts"],
			ListenDrops: s["TcpExt.ListenDrops"], BacklogDrops: s["TcpExt.TCPBacklogDrop"], ReceiveQueueDrops: s["TcpExt.TCPRcvQDrop"],
		},
		UDP: UDP{
			In: s["Udp.InDatagrams"] + s["Udp6InDatagrams"], Out: s["Udp.OutDatagrams"] + s["Udp6OutDatagrams"],
			NoPort: s["Udp.NoPorts"] + s["Udp6NoPorts"], InErrors: s["Udp.InErrors"] + s["Udp6InErrors"],
			ReceiveBuffer: s["Udp.RcvbufErrors"] + s["Udp6RcvbufErrors"], SendBuffer: s["Udp.SndbufErrors"] + s["Udp6SndbufErrors"],
		},
	}
}

func (p Protocol) since(e Protocol) Protocol {
	return Protocol{
		Namespace: p.Namespace,
		IP: IP{
			less(p.IP.Delivered, e.IP.Delivered), less(p.IP.Forwarded, e.IP.Forwarded),
			less(p.IP.InDiscarded, e.IP.InDiscarded), less(p.IP.OutDiscarded, e.IP.OutDiscarded), less(p.IP.Unroutable, e.IP.Unroutable),
		},
		TCP: TCP{
			less(p.TCP.ActiveOpens, e.TCP.ActiveOpens), less(p.TCP.PassiveOpens, e.TCP.PassiveOpens),
			less(p.TCP.InSegments, e.TCP.InSegments), less(p.TCP.OutSegments, e.TCP.OutSegments),
			less(p.TCP.Retransmitted, e.TCP.Retransmitted), less(p.TCP.Timeouts, e.TCP.Timeouts),
			less(p.TCP.InErrors, e.TCP.InErrors), less(p.TCP.OutResets, e.TCP.OutResets),
			less(p.TCP.ListenDrops, e.TCP.ListenDrops), less(p.TCP.BacklogDrops, e.TCP.BacklogDrops),
			less(p.TCP.ReceiveQueueDrops, e.TCP.ReceiveQueueDrops),
		},
		UDP: UDP{
			less(p.UDP.In, e.UDP.In), less(p.UDP.Out, e.UDP.Out), less(p.UDP.NoPort, e.UDP.NoPort),
			less(p.UDP.InErrors, e.UDP.InErrors), less(p.UDP.ReceiveBuffer, e.UDP.ReceiveBuffer), less(p.UDP.SendBuffer, e.UDP.SendBuffer),
		},
	}
}
