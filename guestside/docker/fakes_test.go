package docker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/docker"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/guestside/hostclient/hosttest"
	"github.com/brfuse/brfuse/vnic"
)

// host is a hypervisor's daemon in memory whose IDs and MACs are counted, and whose
// vNICs come into a guest.
type host struct {
	*hosttest.Fake
	resume []func() // of calls that hang
}

func newHost(g *guest, networks ...vnic.Network) *host {
	h := &host{Fake: hosttest.New(networks...)}
	var mu sync.Mutex
	last := 0
	h.OnPlug = func(a *vnic.Attachment) error {
		if a.Request.Manager != "docker" {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		last++
		a.ID, a.GuestPCI = vnic.ID(fmt.Sprintf("%010x", last)), fmt.Sprintf("0000:01:%02x.0", last)
		if a.Request.MAC.IsZero() {
			// Another vNIC than the attachment's own, as from a pool.
			a.MAC, a.Device = vnic.MAC{2, 0, 0, 0, 0, byte(last)}, vnic.ID(fmt.Sprintf("%010x", 0xa0+last))
		}
		g.plug(*a)
		return nil
	}
	h.OnUnplug = g.unplug
	return h
}

// other attaches what is none of Docker's.
func (h *host) other(t *testing.T, req vnic.Request) {
	t.Helper()
	req.Pod, req.Interface, req.Manager = fmt.Sprint("other", len(h.Calls())), "eth0", "cni"
	_, err := h.Attach(t.Context(), req)
	require.NoError(t, err)
}

// hang makes all calls wait until hangs is false.
func (h *host) hang(hangs bool) {
	for _, resume := range h.resume {
		resume()
	}
	h.resume = nil
	if !hangs {
		return
	}
	for _, method := range []string{"Attach", "Detach", "Attachments", "Publish", "Networks", "Reserve", "Unreserve", "Reservations"} {
		h.resume = append(h.resume, h.Hang(method))
	}
}

// text tells what the host has for Docker, a line each.
func (h *host) text() string {
	var lines []string
	ctx, cancel := context.WithCancel(context.Background())
	if h.resume != nil {
		cancel() // it would hang
	}
	defer cancel()
	list, err := h.Attachments(ctx, "docker")
	all := h.String() // also when it is away
	if err != nil || strings.Contains(all, "reserved") {
		for line := range strings.Lines(all) {
			if err != nil || strings.HasPrefix(line, "reserved") {
				lines = append(lines, "host: "+strings.TrimSpace(line)+"\n")
			}
		}
	}
	for _, a := range list {
		var b strings.Builder
		fmt.Fprintf(&b, "host: %s of %s on %s, %s, %v", a.ID, a.Request.Pod, a.Request.Network, a.MAC, a.Leases)
		if a.Request.NoDefaultRoute {
			b.WriteString(", no default route")
		}
		if a.Request.MTU != 0 || a.Request.Queues != 1 || a.Request.Bandwidth != (vnic.Bandwidth{}) {
			fmt.Fprintf(&b, ", mtu %d, queues %d, %d/%d bit/s", a.Request.MTU, a.Request.Queues, a.Request.Bandwidth.Ingress.Bits, a.Request.Bandwidth.Egress.Bits)
		}
		for _, m := range a.Request.Ports {
			fmt.Fprintf(&b, ", port %s", m)
		}
		lines = append(lines, b.String()+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// guest has the links of a VM.
type guest struct {
	mu     sync.Mutex // guards what is below
	nics   map[vnic.MAC]nic
	onBack func(vnic.ID, vnic.MAC)
}

type nic struct {
	id    vnic.ID
	link  string
	where string // a container, or empty for the first namespace
}

func newGuest() *guest {
	return &guest{nics: map[vnic.MAC]nic{}, onBack: func(vnic.ID, vnic.MAC) {}}
}

func (g *guest) plug(a vnic.Attachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nics[a.MAC] = nic{id: a.VNIC(), link: a.VNIC().LinkName()}
}

func (g *guest) unplug(a vnic.Attachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.nics, a.MAC)
}

// AtHome implements docker.Agent.
func (g *guest) AtHome(mac vnic.MAC) (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, ok := g.nics[mac]
	return n.link, ok && n.where == ""
}

// move moves a link, by its name, between the first namespace and a container.
func (g *guest) move(link, from, to, name string) error {
	g.mu.Lock()
	var back *nic
	err := fmt.Errorf("no link %s in %q", link, from)
	for mac, n := range g.nics {
		if n.link != link || n.where != from {
			continue
		}
		n.link, n.where, err = name, to, nil
		g.nics[mac] = n
		if to == "" {
			back = &n
		}
		defer func() {
			if back != nil {
				g.onBack(back.id, mac)
			}
		}()
		break
	}
	g.mu.Unlock()
	return err
}

// die ends a container's namespace: its vNICs come back with the names they have.
func (g *guest) die(container string) {
	g.mu.Lock()
	var back []nic
	for mac, n := range g.nics {
		if n.where == container {
			n.where = ""
			g.nics[mac] = n
			back = append(back, n)
		}
	}
	g.mu.Unlock()
	for _, n := range back {
		g.onBack(n.id, vnic.MAC{})
	}
}

// links returns the names of the links of a container.
func (g *guest) links(container string) (list []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.nics {
		if n.where == container {
			list = append(list, n.link)
		}
	}
	slices.Sort(list)
	return list
}

// String tells where the vNICs are, a line each.
func (g *guest) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var lines []string
	for _, n := range g.nics {
		where := "the first namespace"
		if n.where != "" {
			where = n.where
		}
		lines = append(lines, fmt.Sprintf("guest: %s is %s in %s\n", n.id, n.link, where))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// The real client is a host as the fake one is.
var _ docker.Host = (*hostclient.Client)(nil)
