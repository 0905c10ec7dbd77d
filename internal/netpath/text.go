package netpath

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Write writes the report as an indented text, from the pod to the wire. Texts in it
// are shown as they are: see [Decode].
func (r *Report) Write(w io.Writer) error {
	t := &text{}
	t.line(0, "pod %s in %s, interface %s: %s; from the pod to the wire", r.Pod, r.VM, r.Interface, r.kind())
	if r.Seconds > 0 {
		t.line(0, "counters are since they began, rates and + over %.1f s; ! marks drops in that time", r.Seconds)
	}
	t.side("guest "+r.VM, "first", r.Guest)
	t.side("host", "of brfused", r.Host)
	for _, n := range r.Notes {
		t.line(0, "note: %s", n)
	}
	if r.Seconds > 0 {
		t.line(0, "drops and errors in %.1f s: %d in the guest, %d on the host", r.Seconds, r.Guest.Dropped(), r.Host.Dropped())
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

// kind tells what there is between the pod and the VM's NIC.
func (r *Report) kind() string {
	if r.Fused {
		return "fused"
	}
	devices := 0
	if r.Guest != nil {
		for _, h := range r.Guest.Hops {
			if h.Device != nil {
				devices++
			}
		}
	}
	if last := r.Guest.Last(); devices == 1 && last != nil && last.Kind == "nic" {
		return "native, by a NIC of the vm itself"
	}
	return "nested"
}

type text struct {
	b    strings.Builder
	own  string // what a side's own namespace is called
	path *Path
}

// line writes a line that deep. One that begins with '!' has that in front of all.
func (t *text) line(depth int, format string, args ...any) {
	s := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	mark := " "
	if rest, ok := strings.CutPrefix(s, "!"); ok {
		s, mark = rest, "!"
	}
	if depth == 0 {
		mark = ""
	}
	t.b.WriteString(mark + strings.Repeat("  ", depth) + s + "\n")
}

func (t *text) side(name, own string, p *Path) {
	t.own, t.path = own, p
	t.line(0, "%s", name)
	if p == nil {
		t.line(1, "not known")
		return
	}
	at := -1
	for _, h := range p.Hops {
		if h.Namespace != at {
			at = h.Namespace
			t.namespace(at, p.Namespaces[at])
		}
		switch {
		case h.Device != nil:
			t.device(h.Device)
		case h.Hook != nil:
			t.hook(h.Hook)
		case h.Route != nil:
			t.route(h.Route)
		}
	}
	t.line(1, "end: %s", p.End)
	for _, n := range p.Notes {
		t.line(1, "note: %s", n)
	}
}

func (t *text) namespace(index int, n Namespace) {
	name := n.Name
	if n.Own {
		name = t.own
		if n.Name != self {
			name += " (" + n.Name + ")"
		}
	}
	words := []string{"IPv4 " + onOff("forwarded", n.Forwarding), "IPv6 " + onOff("forwarded", n.Forwarding6)}
	if c := n.Conntrack; c != nil && c.Used {
		words = append(words, fmt.Sprintf("connections tracked: %d of %d", c.Entries, c.Max))
	} else {
		words = append(words, "connections not tracked")
	}
	if n.BridgeFilter && t.path.hasBridge(index) {
		words = append(words, "bridged packets cross the hooks of inet")
	}
	t.line(1, "namespace %s: %s", name, strings.Join(words, ", "))
	if len(n.Legacy) > 0 {
		t.line(2, "legacy iptables has tables here that are not shown: %s", strings.Join(n.Legacy, ", "))
	}
}

// hasBridge tells whether a packet crosses a bridge in a namespace.
func (p *Path) hasBridge(namespace int) bool {
	return slices.ContainsFunc(p.Hops, func(h Hop) bool {
		return h.Namespace == namespace && h.Device != nil && h.Device.Kind == "bridge"
	})
}

func onOff(word string, on bool) string {
	if on {
		return word
	}
	return "not " + word
}

func (t *text) route(r *Route) {
	s := "route to " + r.To
	if r.Outer {
		s = "route of the tunnel's packet to " + r.To
	}
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	s += " by " + r.Device
	if r.Forwarding {
		s += ", forwarded"
	}
	t.line(2, "%s", s)
}

func (t *text) hook(h *Hook) {
	name := h.Name
	if h.Bridge {
		name = "bridge " + name
	}
	if h.Direction != Both {
		name += " (" + string(h.Direction) + ")"
	}
	t.line(2, "hook %s", name)
	t.chains(3, h.Chains)
}

func (t *text) chains(depth int, chains []Chain) {
	for _, c := range chains {
		s := fmt.Sprintf("%s %s %s: %s, priority %d, policy %s, %s", c.Family, c.Table, c.Name, c.Type, c.Priority, c.Policy, plural(c.Rules, "rule"))
		if c.Called > 0 {
			s += " in " + plural(c.Called+1, "chain")
		}
		if c.NAT && c.Type != "nat" {
			s += ", translates addresses"
		}
		if c.Conntrack {
			s += ", conntrack"
		}
		t.line(depth, "%s", s)
		for _, r := range c.Counters {
			t.counter(depth+1, c.Name, r)
		}
		if c.Uncounted > 0 {
			t.line(depth+1, "and %s more", plural(c.Uncounted, "counter"))
		}
	}
}

func (t *text) counter(depth int, base string, r RuleCounter) {
	if r.Count.Packets == 0 {
		return // a ruleset has many
	}
	where := fmt.Sprintf("rule %d", r.Rule)
	if r.Chain != base {
		where = r.Chain + " " + where
	}
	if r.Name != "" {
		where += " (" + r.Name + ")"
	}
	t.line(depth, "%s%s, %s: %s", r.Count.mark(), where, r.Does, r.Count.text())
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
