package guestside

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// holdByProcess starts a process in ns and returns its id.
func holdByProcess(t *testing.T, ns *netnsx.NS) string {
	t.Helper()
	var cmd *exec.Cmd
	in(t, ns, func() error {
		cmd = exec.CommandContext(t.Context(), "sleep", "60")
		return cmd.Start()
	})
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return strconv.Itoa(cmd.Process.Pid)
}

// TestIntegrationReleaseForgets: what is to be unplugged stays where it is, and
// the agent doesn't know it any more.
func TestIntegrationReleaseForgets(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24")
	l.plug(m, "ens5")
	l.attach(m)
	require.NoError(t, l.Release(l.deadline(), m))
	assert.Contains(t, show(t, pod), "eth0 up")
	assert.Empty(t, l.records.all())
	require.NoError(t, l.Release(l.deadline(), m), "twice")
}

func TestIntegrationReleaseKeep(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24", "fd00:1::2/64")
	m.Routes = []vnic.Route{route("0.0.0.0/0", "10.1.0.1")}
	l.park(m)
	m.MTU = 1400
	l.attach(m)
	in(t, pod, func() error { // what a pod may do to it
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, do := range []func() error{
			func() error { return netlink.LinkSetAlias(link, "mine") },
			func() error { return netlink.LinkAddAltName(link, "also-mine") },
			func() error { return netlink.SetPromiscOn(link) },
			func() error { return netlink.LinkSetARPOff(link) },
		} {
			if err := do(); err != nil {
				return err
			}
		}
		return nil
	})
	m.MTU = 0
	for range 2 { // the second time it is home already
		l.retrieve(m)
		assert.Empty(t, show(t, pod))
		assert.Equal(t, m.ID.LinkName()+" down", show(t, l.Agent.home), "name, mtu and addresses")
		link := linksOf(t, l.Agent.home)[m.ID.LinkName()]
		assert.Empty(t, link.Alias)
		assert.Empty(t, link.AltNames)
		in(t, l.Agent.home, func() error {
			nl, err := netlink.LinkByName(m.ID.LinkName())
			assert.Zero(t, nl.Attrs().RawFlags&0x180, "promisc, noarp")
			return err
		})
	}
	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []vnic.NIC{{ID: m.ID, MAC: m.MAC, Driver: "veth", Interface: m.ID.LinkName()}}, nics)

	m.MTU = 0
	l.attach(m) // and it can be used again
	assert.Contains(t, show(t, pod), "10.1.0.2/24")
}

func TestIntegrationReleaseGone(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	never, lost, held := order(pod), order(pod), order(pod)
	for range 2 {
		require.NoError(t, l.Release(l.deadline(), never), "never seen")
		never.Netns = "no-such-pod"
	}

	l.plug(lost, "ens5") // the vNIC goes, as when it is unplugged
	l.attach(lost)
	in(t, pod, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := l.Retrieve(soon, lost)
	require.ErrorIs(t, err, vnic.ErrNICMissing)

	l.park(held) // the name of the namespace goes, but a process keeps it
	l.attach(held)
	holdByProcess(t, pod)
	held.Netns = "no-such-pod"
	l.records.drop(held.MAC)
	l.retrieve(held)
	assert.Equal(t, held.ID.LinkName()+" down", show(t, l.Agent.home))
}

// A pod may have its vNIC under as many names as there can be, and die with it.
// That must not make the agent blind.
func TestIntegrationReturnedWithManyNames(t *testing.T) {
	l := newLab(t)
	pod, hostile := newNS(t), newNS(t)
	m, other := order(hostile), order(pod)
	l.plug(m, "ens5")
	l.attach(m)
	in(t, hostile, func() error {
		for i := range 400 {
			if err := addAltName("eth0", fmt.Sprintf("%0120d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	assert.Len(t, nics, 1)
	l.sendHome(hostile)
	assert.Equal(t, m.ID, l.awaitReturned())
	assert.Equal(t, m.ID.LinkName()+" down", show(t, l.Agent.home))
	assert.Empty(t, linksOf(t, l.Agent.home)[m.ID.LinkName()].AltNames)
	l.plug(other, "ens6")
	l.attach(other)
}

func TestIntegrationNICsDespiteABrokenPod(t *testing.T) {
	l := newLab(t)
	broken, other := order(newNS(t)), order(newNS(t))
	path := filepath.Join(t.TempDir(), "pod")
	require.NoError(t, os.Symlink(broken.Netns, path))
	broken.Netns = path
	for _, m := range []vnic.Move{broken, other} {
		l.plug(m, m.ID.TapName())
		l.attach(m)
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink(path, path)) // a loop
	nics, err := l.NICs(t.Context())
	require.NoError(t, err)
	require.Len(t, nics, 1)
	assert.Equal(t, other.MAC, nics[0].MAC)
}

// A search that was cut short has found nothing, which doesn't mean that there
// is nothing.
func TestIntegrationReleaseCutShort(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t))
	m.Netns = "no-such-pod"
	ctx, cancel := context.WithCancel(t.Context())
	release, err := l.begin(ctx, m)
	require.NoError(t, err)
	defer release()
	cancel()
	_, _, err = l.search(ctx, m.MAC)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "search all network namespaces for vnic "+m.MAC.String())
}

// sendHome moves a pod's eth0 to the first namespace, as the kernel does when the
// pod's dies.
func (l *lab) sendHome(pod *netnsx.NS) {
	l.t.Helper()
	require.NoError(l.t, within(pod, func(c *rtnl.Conn) error {
		link, err := c.Link("eth0")
		if err != nil {
			return err
		}
		return c.Do(rtnl.SetLink(link.Index, rtnl.Change{Netns: l.Agent.home.FD()}))
	}))
}

// awaitReturned returns the next vNIC whose return was noticed.
func (l *lab) awaitReturned() (id vnic.ID) {
	l.t.Helper()
	select {
	case id = <-l.returned:
	case <-time.After(10 * time.Second):
		require.Fail(l.t, "it was not noticed that the vnic is back")
	}
	return id
}

// A virtio NIC whose namespace dies goes back to the first one, down, with its
// name and MTU. A veth is destroyed, so the test moves it back.
func TestIntegrationReturned(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod, "10.1.0.2/24")
	l.park(m)
	m.MTU = 1400
	l.attach(m)
	l.sendHome(pod)
	assert.Equal(t, m.ID, l.awaitReturned())
	assert.Equal(t, m.ID.LinkName()+" down", show(t, l.Agent.home))
	assert.Empty(t, l.records.all())

	l.attach(m)
	l.retrieve(m)
	assert.Empty(t, l.returned, "what the agent did itself is no return")
}

func TestIntegrationCallsForOneVNICWait(t *testing.T) {
	l := newLab(t)
	m := order(newNS(t))
	release, err := l.locks.Lock(t.Context(), m.MAC)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = l.Move(ctx, m)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "await another call for vnic "+m.MAC.String())
	release()
}

func TestIntegrationPodRefs(t *testing.T) {
	l := newLab(t)
	pod := newNS(t)
	m := order(pod)
	m.Netns = holdByProcess(t, pod)
	l.park(m)
	l.attach(m)
	assert.Equal(t, "eth0 up", show(t, pod))
	l.retrieve(m)
	assert.NotEqual(t, strconv.Itoa(os.Getpid()), m.Netns)
}
