package hosttest_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/vnic"
)

func webRequest() vnic.Request {
	return vnic.Request{Key: vnic.Key{Pod: "web", Interface: "eth0"}, Network: "blue", Manager: "cni"}
}

func TestNoSession(t *testing.T) {
	c := hostclient.New(hostclient.Config{Grace: 20 * time.Millisecond})
	_, err := c.Networks(t.Context())
	require.ErrorIs(t, err, vnic.ErrHostUnavailable)
	require.ErrorContains(t, err, "is brfused running on the hypervisor")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Networks(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, vnic.ErrHostUnavailable, "the caller's own doing")
}

// A daemon that is restarted in the middle of a call gets it again.
func TestSessionEndsDuringACall(t *testing.T) {
	c := newChain(t, hostclient.Config{Grace: 10 * time.Second})
	sessions := c.Notify()
	_, err := c.Networks(t.Context())
	require.NoError(t, err)
	<-sessions
	resume := c.fake.Hang("Attach")
	done := make(chan error, 1)
	go func() {
		_, err := c.Attach(t.Context(), webRequest())
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(c.fake.Calls()), "Attach") }, 10*time.Second, time.Millisecond)
	c.up(t)
	<-sessions
	resume()
	require.NoError(t, <-done)
	assert.Equal(t, "web/eth0 blue [10.9.0.2/24 fd00:9::2/64] manager cni", c.fake.String())
	assert.Equal(t, []string{"Networks", "Attach web/eth0", "Attach web/eth0"}, c.fake.Calls())
}

// What the daemon answers is not repeated, and comes in its words.
func TestAnswersAreNotRepeated(t *testing.T) {
	c := newChain(t, hostclient.Config{})
	c.fake.Fail("Attach", fmt.Errorf("vm vm1: 3 of 3 slots: %w", vnic.ErrNoSlot), -1)
	_, err := c.Attach(t.Context(), webRequest())
	require.EqualError(t, err, "vm vm1: 3 of 3 slots: no free PCI slot")
	require.ErrorIs(t, err, vnic.ErrNoSlot)
	assert.Len(t, c.fake.Calls(), 1)
}

// Whoever gives up an attach calls Detach, which waits for it and takes it back.
func TestGivenUpAttach(t *testing.T) {
	c := newChain(t, hostclient.Config{})
	begun := make(chan struct{})
	resume := make(chan struct{})
	c.fake.OnPlug = func(*vnic.Attachment) error {
		close(begun)
		<-resume
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	_, err := c.Attach(ctx, webRequest())
	require.ErrorIs(t, err, context.Canceled)
	detached := make(chan error, 1)
	go func() { detached <- c.Detach(t.Context(), "web", "eth0") }()
	require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(c.fake.Calls()), "Detach") }, 10*time.Second, time.Millisecond)
	close(resume)
	require.NoError(t, <-detached)
	assert.Empty(t, c.fake.String())
}

func TestSlowDaemon(t *testing.T) {
	c := newChain(t, hostclient.Config{Ask: 300 * time.Millisecond})
	defer c.fake.Hang("Networks")()
	began := time.Now()
	_, err := c.Networks(t.Context())
	require.ErrorIs(t, err, vnic.ErrHostUnavailable)
	assert.Less(t, time.Since(began), 5*time.Second)
}

// Attachments with all that they may have come in parts that fit into messages.
func TestLargeAttachments(t *testing.T) {
	c := newChain(t, hostclient.Config{})
	const many = 40
	for i := range many {
		r := webRequest()
		r.Pod, r.Netns = fmt.Sprintf("pod-%d", i), "/"+strings.Repeat("n", 4000)
		for p := range vnic.MaxPorts {
			r.Ports = append(r.Ports, vnic.PortMapping{HostIP: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), HostPort: uint16(2000 + p), Port: 80, Protocol: vnic.SCTP})
			r.Routes = append(r.Routes, vnic.Route{
				Destination: netip.MustParsePrefix("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128"), Gateway: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
			})
		}
		c.fake.Seed(vnic.Attachment{Request: r})
	}
	list, err := c.Attachments(t.Context(), "cni")
	require.NoError(t, err)
	assert.Len(t, list, many)
	assert.Len(t, list[many-1].Request.Ports, vnic.MaxPorts)
	assert.True(t, list[0].MAC.IsZero())

	// And small ones by the hundreds.
	for i := range 1000 {
		r := webRequest()
		r.Pod, r.Manager = fmt.Sprintf("small-%d", i), "docker"
		c.fake.Seed(vnic.Attachment{Request: r, MAC: vnic.NewMAC()})
	}
	list, err = c.Attachments(t.Context(), "docker")
	require.NoError(t, err)
	assert.Len(t, list, 1000)
}

// What is too large to be sent is refused before it ends the session.
func TestTooLargeRequests(t *testing.T) {
	c := newChain(t, hostclient.Config{})
	r := webRequest()
	r.Ports = make([]vnic.PortMapping, 5000)
	_, err := c.Attach(t.Context(), r)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	require.ErrorIs(t, c.Publish(t.Context(), "web", "eth0", r.Ports), vnic.ErrInvalid)
	require.NoError(t, c.Unreserve(t.Context(), "blue", make([]netip.Addr, 0)))
	require.NoError(t, c.Unreserve(t.Context(), "blue", repeat(netip.MustParseAddr("10.9.0.9"), 1000)))
	_, err = c.Attach(t.Context(), webRequest())
	require.NoError(t, err)
}

func repeat(a netip.Addr, n int) []netip.Addr {
	list := make([]netip.Addr, n)
	for i := range list {
		list[i] = a
	}
	return list
}

// A daemon without orders, such as one of a version before them, says so.
func TestDaemonWithoutOrders(t *testing.T) {
	c := newChain(t, hostclient.Config{})
	require.NoError(t, c.links.Close())
	c.links = guestlink.New(guestlink.Config{Heartbeat: 50 * time.Millisecond})
	require.NoError(t, c.links.AddVM(t.Context(), vnic.VM{Name: "vm1", Channel: c.socket}))
	_, err := c.Networks(t.Context())
	require.ErrorIs(t, err, vnic.ErrUnsupported)
}
