package hosttest_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/guestside/guestlink"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/guestside/hostclient/hosttest"
	"github.com/brfuse/brfuse/vnic"
)

// site is what newFake has.
var site = hosttest.Site{Network: "blue", Forbidden: "green", Pods: [2]string{"web", "db"}}

func newFake() *hosttest.Fake {
	green := vnic.Network{Name: "green", Subnets: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/24")}}
	f := hosttest.New(hosttest.Blue(), green)
	f.Allowed = []string{"blue"}
	return f
}

// orders serves a fake to the guest of VM vm1.
type orders struct {
	t *testing.T
	*hosttest.Fake
}

func (o orders) is(vm string) { assert.Equal(o.t, "vm1", vm) }

func (o orders) Networks(ctx context.Context, vm string) ([]vnic.Network, error) {
	o.is(vm)
	return o.Fake.Networks(ctx)
}

func (o orders) Attach(ctx context.Context, vm string, req vnic.Request) (vnic.Attachment, error) {
	o.is(vm)
	o.is(req.VM)
	return o.Fake.Attach(ctx, req)
}

func (o orders) Detach(ctx context.Context, vm, pod, iface string) error {
	o.is(vm)
	return o.Fake.Detach(ctx, pod, iface)
}

func (o orders) Attachments(ctx context.Context, vm, manager string) ([]vnic.Attachment, error) {
	o.is(vm)
	return o.Fake.Attachments(ctx, manager)
}

func (o orders) Check(ctx context.Context, vm, pod, iface string) (vnic.Attachment, error) {
	o.is(vm)
	return o.Fake.Check(ctx, pod, iface)
}

func (o orders) Ready(ctx context.Context, vm, network string) error {
	o.is(vm)
	return o.Fake.Ready(ctx, network)
}

func (o orders) Publish(ctx context.Context, vm, pod, iface string, ports []vnic.PortMapping) error {
	o.is(vm)
	return o.Fake.Publish(ctx, pod, iface, ports)
}

func (o orders) Reserve(ctx context.Context, vm, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error) {
	o.is(vm)
	return o.Fake.Reserve(ctx, network, want, ipv6)
}

func (o orders) Unreserve(ctx context.Context, vm, network string, addrs []netip.Addr) error {
	o.is(vm)
	return o.Fake.Unreserve(ctx, network, addrs)
}

func (o orders) Reservations(ctx context.Context, vm string) ([]vnic.Reservation, error) {
	o.is(vm)
	return o.Fake.Reservations(ctx)
}

// idle is an agent that is never called.
type idle struct{ agentd.Agent }

func (idle) NICs(context.Context) ([]vnic.NIC, error) { return nil, nil }

var _ agentd.Agent = (*guestside.Agent)(nil)

// chain is a client in a guest, the channel, and a fake on the host.
type chain struct {
	*hostclient.Client

	fake   *hosttest.Fake
	socket string
	links  *guestlink.Links
}

func newChain(t *testing.T, cfg hostclient.Config) *chain {
	t.Helper()
	c := &chain{Client: hostclient.New(cfg), fake: newFake(), socket: filepath.Join(t.TempDir(), "agent.sock")}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- agentd.Run(ctx, agentd.Config{Agent: idle{}, Channel: "unix:" + c.socket, Client: c.Client, Silence: 2 * time.Second})
	}()
	t.Cleanup(func() {
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
	c.up(t)
	t.Cleanup(func() { assert.NoError(t, c.links.Close()) })
	return c
}

// up starts the host's end anew.
func (c *chain) up(t *testing.T) {
	t.Helper()
	if c.links != nil {
		require.NoError(t, c.links.Close())
	}
	c.links = guestlink.New(guestlink.Config{Orders: orders{t, c.fake}, Heartbeat: 50 * time.Millisecond, Silence: 2 * time.Second})
	require.NoError(t, c.links.AddVM(t.Context(), vnic.VM{Name: "vm1", Channel: c.socket}))
}

func TestConformance(t *testing.T) {
	t.Run("fake", func(t *testing.T) { hosttest.Conform(t, newFake(), site) })
	t.Run("channel", func(t *testing.T) { hosttest.Conform(t, newChain(t, hostclient.Config{}), site) })
}

func TestFakeDoesAsItIsTold(t *testing.T) {
	f := newFake()
	ctx := t.Context()
	req := vnic.Request{Key: vnic.Key{Pod: "web", Interface: "eth0"}, Network: "blue", Manager: "cni"}
	var plugged, unplugged []string
	f.OnPlug = func(a *vnic.Attachment) error {
		plugged = append(plugged, a.Request.Pod)
		a.GuestPCI = "0000:03:00.0"
		return nil
	}
	f.OnUnplug = func(a vnic.Attachment) { unplugged = append(unplugged, a.Request.Pod) }

	f.Fail("Attach", vnic.ErrNoSlot, 1)
	_, err := f.Attach(ctx, req)
	require.ErrorIs(t, err, vnic.ErrNoSlot)
	f.SetAway(true)
	_, err = f.Attach(ctx, req)
	require.ErrorIs(t, err, vnic.ErrHostUnavailable)
	f.SetAway(false)

	resume := f.Hang("Attach")
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = f.Attach(short, req)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	resume()
	a, err := f.Attach(ctx, req)
	require.NoError(t, err)
	assert.Equal(t, "0000:03:00.0", a.GuestPCI)
	assert.Equal(t, "web/eth0 blue [10.9.0.2/24 fd00:9::2/64] manager cni", f.String())

	f.Break("web", "eth0", vnic.ErrDiffers)
	_, err = f.Check(ctx, "web", "eth0")
	require.ErrorIs(t, err, vnic.ErrDiffers)
	require.NoError(t, f.Detach(ctx, "web", "eth0"))
	assert.Empty(t, f.String())
	assert.Equal(t, []string{"web"}, plugged)
	assert.Equal(t, []string{"web"}, unplugged)

	f.OnPlug = func(*vnic.Attachment) error { return errors.New("no device") }
	_, err = f.Attach(ctx, req)
	require.ErrorContains(t, err, "no device")
	assert.Empty(t, f.String())

	f.Slots = 0
	require.ErrorIs(t, f.Ready(ctx, "blue"), vnic.ErrNoSlot)
	f.Seed(vnic.Attachment{Request: vnic.Request{Key: vnic.Key{Pod: "api", Interface: "eth0"}, Network: "blue"}})
	require.ErrorIs(t, f.Detach(ctx, "api", "eth0"), vnic.ErrForbidden)
	assert.Contains(t, f.Calls(), "Check web/eth0")
}
