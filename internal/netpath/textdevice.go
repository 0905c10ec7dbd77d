package netpath

import (
	"fmt"
	"strings"
)

func (t *text) device(d *Device) {
	words := []string{d.Kind}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if d.Driver != "" && d.Driver != d.Kind {
		add("%s", strings.TrimSpace(d.Driver+" "+d.Bus))
	}
	add("mtu %d", d.MTU)
	switch {
	case !d.Up:
		add("DOWN")
	case !d.Carrier:
		add("no carrier")
	}
	if d.Master != "" {
		add("port of %s", d.Master)
	}
	if d.Queues > 0 {
		add("%d of %d queues", d.Queues, d.MaxQueues)
	}
	if d.Vectors > 0 {
		add("%d vectors", d.Vectors)
	}
	t.line(2, "device %s: %s", d.Name, strings.Join(words, ", "))
	if len(d.Offloads) > 0 {
		t.line(3, "offloads: %s", strings.Join(d.Offloads, " "))
	}
	t.extras(d)
	t.line(3, "%sreceived %s", d.RX.mark(), d.RX.text())
	t.line(3, "%ssent %s", d.TX.mark(), d.TX.text())
	for _, q := range d.Qdiscs {
		t.qdisc(q)
	}
	t.chains(3, d.Chains)
}

// extras is what only devices of one kind have.
func (t *text) extras(d *Device) {
	if x := d.VXLAN; x != nil {
		remote := "no other end is known"
		if x.Remote.IsValid() {
			remote = "to " + x.Remote.String()
		}
		t.line(3, "vxlan %d, port %d, %s", x.VNI, x.Port, remote)
	}
	if p := d.Tap; p != nil {
		s := "tap: " + plural(p.Queues, "queue") + " open"
		if !p.VnetHdr {
			s += ", no vnet_hdr: no offloads reach the guest"
		}
		switch p.Vhost {
		case "kernel":
			s += ", vhost in the kernel copies packets"
		case "qemu":
			s += ", QEMU itself copies packets (no vhost)"
		}
		t.line(3, "%s", s)
	}
	for _, p := range d.Programs {
		t.line(3, "program: %s", p)
	}
}

func (t *text) qdisc(q Qdisc) {
	s := "qdisc " + q.Kind
	if q.Parent != "root" {
		s += " at " + q.Parent
	}
	if q.Sent.Packets > 0 || q.Sent.Drops > 0 {
		s += ": sent " + q.Sent.text()
	}
	if q.Waiting > 0 || q.Backlog > 0 {
		s += fmt.Sprintf(", %s waiting (%d B)", plural(int(min(q.Waiting, 1<<31)), "frame"), q.Backlog)
	}
	if q.Requeues > 0 {
		s += fmt.Sprintf(", %d requeued", q.Requeues)
	}
	t.line(3, "%s%s", q.Sent.mark(), s)
}

// mark is '!' when something was dropped between two looks.
func (c Count) mark() string {
	if c.Since != nil && c.Since.Drops+c.Since.Errors > 0 {
		return "!"
	}
	return ""
}

// text is "12 packets, 840 B, 2 dropped (6.0/s, 420 B/s, +1 dropped)".
func (c Count) text() string {
	parts := []string{plural64(c.Packets, "packet"), size(float64(c.Bytes))}
	if c.Drops > 0 {
		parts = append(parts, fmt.Sprintf("%d dropped", c.Drops))
	}
	if c.Errors > 0 {
		parts = append(parts, plural64(c.Errors, "error"))
	}
	s := strings.Join(parts, ", ")
	if c.Since == nil {
		return s
	}
	rates := []string{fmt.Sprintf("%.1f/s", c.Since.PacketsPerSecond), size(c.Since.BytesPerSecond) + "/s"}
	if c.Since.Drops > 0 {
		rates = append(rates, fmt.Sprintf("+%d dropped", c.Since.Drops))
	}
	if c.Since.Errors > 0 {
		rates = append(rates, fmt.Sprintf("+%d errors", c.Since.Errors))
	}
	return s + " (" + strings.Join(rates, ", ") + ")"
}

func plural64(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size is bytes in the unit that suits.
func size(bytes float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if bytes < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", bytes)
			}
			return fmt.Sprintf("%.1f %s", bytes, unit)
		}
		bytes /= 1000
	}
	return fmt.Sprintf("%.1f TB", bytes)
}
