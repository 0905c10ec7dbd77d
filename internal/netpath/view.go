package netpath

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// view is a network namespace as the walk sees it. What it has of it was read when
// it was opened.
type view struct {
	ns     *netnsx.NS
	conn   *rtnl.Conn
	index  int // in Path.Namespaces
	links  []rtnl.Link
	addrs  []rtnl.Addr
	routes []rtnl.Route
	qdiscs []rtnl.Qdisc
	rules  *ruleset
}

// openView reads a namespace, which becomes the view's.
func openView(ctx context.Context, ns *netnsx.NS) (*view, error) {
	v := &view{ns: ns}
	err := ns.Do(func() (err error) {
		v.conn, err = rtnl.Dial()
		return err
	})
	for _, r := range []rtnl.Request{
		rtnl.GetLinks(&v.links), rtnl.GetAddrs(&v.addrs), rtnl.GetRoutes(&v.routes), rtnl.GetQdiscs(&v.qdiscs),
	} {
		if err == nil { // one by one: the kernel takes one dump of a socket at a time
			err = v.conn.Do(r)
		}
	}
	if err == nil {
		v.rules, err = readRules(ctx, ns)
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *view) close() error {
	var err error
	if v.conn != nil {
		err = v.conn.Close()
	}
	return errors.Join(err, v.ns.Close())
}

// link returns the link of an index in full.
func (v *view) link(index int) (rtnl.PathLink, error) {
	var l rtnl.PathLink
	err := v.conn.Do(rtnl.GetPathLink(&l, index))
	return l, err
}

// describe reads what /proc has of the namespace.
func (v *view) describe(name string, own bool) Namespace {
	n := Namespace{Name: name, Own: own}
	_ = v.ns.Do(func() error { // what can't be read is as if it weren't there
		n.Forwarding = readLine("/proc/sys/net/ipv4/ip_forward") == "1"
		n.Forwarding6 = readLine("/proc/sys/net/ipv6/conf/all/forwarding") == "1"
		n.BridgeFilter = readLine("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1"
		n.Legacy = legacyTables()
		const tracked = "/proc/sys/net/netfilter/nf_conntrack_"
		if most := readLine(tracked + "max"); most != "" {
			n.Conntrack = &Conntrack{Used: v.rules.conntracks(), Entries: number(readLine(tracked + "count")), Max: number(most)}
		}
		return nil
	})
	return n
}

// legacyTables tells which tables of xtables-legacy the calling thread's namespace
// has: "ip nat", "ip6 filter". Their rules are not read.
func legacyTables() []string {
	var tables []string
	for _, f := range []struct{ family, file string }{
		{"ip", "/proc/thread-self/net/ip_tables_names"}, {"ip6", "/proc/thread-self/net/ip6_tables_names"},
	} {
		b, err := os.ReadFile(f.file)
		if err != nil {
			continue // no such module
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			tables = append(tables, f.family+" "+s.Text())
		}
	}
	return tables
}

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// find opens the namespace that v knows by an id.
func (v *view) find(ctx context.Context, id int) (*netnsx.NS, string, error) {
	for path := range netnsx.All() {
		if err := ctx.Err(); err != nil {
			return nil, "", fmt.Errorf("look for network namespace %d: %w", id, err)
		}
		ns, err := netnsx.Open(path)
		if err != nil {
			continue // it went meanwhile
		}
		got := -1
		err = v.conn.Do(rtnl.GetNetnsID(&got, ns.FD()))
		if err == nil && got == id {
			return ns, path, nil
		}
		if cerr := ns.Close(); cerr != nil {
			return nil, "", cerr
		}
	}
	return nil, "", errNoNamespace
}

// errNoNamespace is returned when no process and no name leads to a namespace.
var errNoNamespace = errors.New("no name in /run/netns and no process leads there")
