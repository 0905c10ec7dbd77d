package guestside

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// handover returns an order for a new vNIC that an engine is to move.
func handover() vnic.Move {
	return vnic.Move{ID: vnic.NewID(), MAC: vnic.NewMAC(), Interface: "eth0", Queues: 1, MTU: 1400, Handover: true}
}

// engine does what dockerd does: it takes a link from one namespace into another
// and edits it there.
func (l *lab) engine(from *netnsx.NS, name string, to *netnsx.NS, edit func(link netlink.Link) error) {
	l.t.Helper()
	var index int
	in(l.t, from, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
		return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetNsFd(link, to.FD()))
	})
	in(l.t, to, func() error {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			if link, err = netlink.LinkByName(name); err != nil {
				return err
			}
		}
		return edit(link)
	})
}

// take is how dockerd takes a vNIC into a container.
func (l *lab) take(m vnic.Move, to *netnsx.NS) {
	l.t.Helper()
	l.engine(l.Agent.home, m.ID.LinkName(), to, func(link netlink.Link) error {
		return errors.Join(netlink.LinkSetName(link, "eth0"), netlink.LinkSetUp(link))
	})
}

func (l *lab) awaitBack() vnic.ID {
	l.t.Helper()
	select {
	case id := <-l.back:
		return id
	case <-time.After(5 * time.Second):
		require.FailNow(l.t, "timeout", "waited 5 s for a vnic to be handed back")
		return ""
	}
}

func TestIntegrationHandover(t *testing.T) {
	l := newLab(t)
	m := handover()
	require.NoError(t, l.Prepare(l.deadline(), m))
	done := make(chan error, 1)
	var nic vnic.NIC
	go func() {
		var err error
		nic, _, err = l.Attach(l.deadline(), m)
		done <- err
	}()
	l.awaitWaiter(m.MAC)
	l.plug(m, "ens7")
	require.NoError(t, <-done)
	assert.Equal(t, m.ID.LinkName()+" down mtu 1400", show(t, l.home))
	assert.Equal(t, vnic.NIC{ID: m.ID, MAC: m.MAC, Driver: "veth", Interface: m.ID.LinkName()}, nic)
	link, ok := l.AtHome(m.MAC)
	assert.Equal(t, m.ID.LinkName(), link)
	assert.True(t, ok)
	require.NoError(t, l.Check(l.deadline(), m))
	nics, err := l.NICs(l.deadline())
	require.NoError(t, err)
	require.Len(t, nics, 1)
	assert.Equal(t, m.ID, nics[0].ID)
	assert.Empty(t, l.back, "it never left")
}

// What the VM's own network manager has done to the NIC is undone.
func TestIntegrationHandoverScrubs(t *testing.T) {
	l := newLab(t)
	m := handover()
	l.plug(m, "ens7")
	in(t, l.home, func() error {
		link, err := netlink.LinkByName("ens7")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.7.0.2/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, addr), netlink.LinkSetAlias(link, "uplink"), netlink.LinkSetMTU(link, 9000))
	})
	for range 2 { // it may be repeated
		_, _, err := l.Attach(l.deadline(), m)
		require.NoError(t, err)
		assert.Equal(t, m.ID.LinkName()+" down mtu 1400", show(t, l.home))
		assert.Empty(t, linksOf(t, l.home)[m.ID.LinkName()].Alias)
	}
}

func TestIntegrationHandoverInAContainer(t *testing.T) {
	l := newLab(t)
	m, pod := handover(), newNS(t)
	holdByProcess(t, pod) // a search finds it by that
	l.plug(m, "ens7")
	_, _, err := l.Attach(l.deadline(), m)
	require.NoError(t, err)
	l.take(m, pod)
	require.Eventually(t, func() bool { _, ok := l.AtHome(m.MAC); return !ok }, 5*time.Second, time.Millisecond)

	for _, restart := range []bool{false, true} {
		if restart {
			l.restart()
		}
		nic, _, err := l.Attach(l.deadline(), m)
		require.NoError(t, err)
		assert.Contains(t, show(t, pod), "eth0 up mtu 1400", "it is left alone")
		assert.NotEmpty(t, nic.Netns)
		assert.Equal(t, "eth0", nic.Interface)
		require.NoError(t, l.Check(l.deadline(), m))
	}

	// The engine, or what is left of it, gives it back with a name, an MTU and
	// addresses of its own choice.
	in(t, pod, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMTU(link, 1300), netlink.LinkSetAlias(link, "x"))
	})
	l.engine(pod, "eth0", l.home, func(netlink.Link) error { return nil })
	assert.Equal(t, m.ID, l.awaitBack())
	link, ok := l.AtHome(m.MAC)
	assert.True(t, ok, link)
	require.Eventually(t, func() bool { link, _ := l.AtHome(m.MAC); return link == m.ID.LinkName() }, 5*time.Second, time.Millisecond)
	assert.Equal(t, m.ID.LinkName()+" down mtu 1400", show(t, l.home))

	// And so once more: it is told each time.
	l.take(m, pod)
	l.engine(pod, "eth0", l.home, func(link netlink.Link) error { return netlink.LinkSetName(link, m.ID.LinkName()) })
	assert.Equal(t, m.ID, l.awaitBack())

	require.NoError(t, l.Release(l.deadline(), vnic.Move{ID: m.ID, MAC: m.MAC}))
	l.take(m, pod)
	l.engine(pod, "eth0", l.home, func(netlink.Link) error { return nil })
	require.Eventually(t, func() bool { link, _ := l.AtHome(m.MAC); return link == "eth0" }, 5*time.Second, time.Millisecond)
	assert.Empty(t, l.back, "a vnic that was released is nobody's business")
	assert.Empty(t, l.returned)
}

func TestIntegrationHandoverFails(t *testing.T) {
	l := newLab(t)
	m := handover()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, _, err := l.Attach(ctx, m)
	require.ErrorIs(t, err, vnic.ErrNICMissing)
	require.ErrorIs(t, l.Check(l.deadline(), m), vnic.ErrNICMissing)

	other := handover()
	l.plug(other, m.ID.LinkName()) // another link has the name
	require.Eventually(t, func() bool { _, ok := l.AtHome(other.MAC); return ok }, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, l.Prepare(l.deadline(), m), vnic.ErrNameTaken)
	in(t, l.host, func() error {
		link, err := netlink.LinkByName(other.ID.LinkName())
		if err != nil {
			return err
		}
		return netlink.LinkSetName(link, "peer")
	})
	l.plug(m, "ens7")
	_, _, err = l.Attach(l.deadline(), m)
	require.ErrorIs(t, err, vnic.ErrNameTaken)
}

// A device that tells its permanent MAC is known by it, whatever the engine set.
func TestDeliverPlan(t *testing.T) {
	m := handover()
	fresh := rtnl.Link{Index: 3, Name: "ens7", MAC: m.MAC, Permanent: m.MAC, MTU: 1500}
	for _, tt := range []struct {
		name  string
		edit  func(*rtnl.Link)
		addrs []netip.Prefix
		want  []string
	}{
		{"fresh", func(*rtnl.Link) {}, nil, []string{"set link 3: name " + m.ID.LinkName() + ", mtu 1400"}},
		{"delivered", func(l *rtnl.Link) { l.Name, l.MTU = m.ID.LinkName(), 1400 }, nil, nil},
		{"another mac", func(l *rtnl.Link) { l.Name, l.MTU, l.MAC = m.ID.LinkName(), 1400, vnic.NewMAC() }, nil, []string{
			"set link 3: down", "set link 3: mac " + m.MAC.String(),
		}},
		{"up with an address", func(l *rtnl.Link) { l.Name, l.MTU, l.Up = m.ID.LinkName(), 1400, true }, []netip.Prefix{netip.MustParsePrefix("10.7.0.2/24")}, []string{
			"set link 3: down", "take address 10.7.0.2/24",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := fresh
			tt.edit(&l)
			var got []string
			for _, r := range deliverPlan(l, tt.addrs, m) {
				got = append(got, r.String())
			}
			assert.Equal(t, tt.want, got)
		})
	}
}
