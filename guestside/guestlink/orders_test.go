package guestlink

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// patient has orders that hang until their context ends, or until it is told.
type patient struct {
	Orders

	open chan struct{}

	mu        sync.Mutex // guards what is below
	now, most int
	last      vnic.Request
}

func (p *patient) Attach(ctx context.Context, _ string, req vnic.Request) (vnic.Attachment, error) {
	p.mu.Lock()
	p.now++
	p.most = max(p.most, p.now)
	p.last = req
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.now--
	}()
	select {
	case <-p.open:
		return vnic.Attachment{ID: vnic.NewID()}, nil
	case <-ctx.Done():
		return vnic.Attachment{}, ctx.Err()
	}
}

func (p *patient) count() (now, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.most
}

func newOrders(t *testing.T, o Orders) *host {
	t.Helper()
	h := newHost("vm1", func(vnic.Event) {})
	h.orders = o
	h.open()
	return h
}

func attachRequest() *agentv1.AttachRequest {
	return &agentv1.AttachRequest{
		Pod: "web", Interface: "eth0", Network: "blue", Netns: "/run/netns/web", Manager: "cni", Mac: "02:00:5e:00:53:01",
		Addresses: []string{"10.9.0.5", "fd00:9::5"}, Queues: 2, Mtu: 1400, NoDefaultRoute: true,
		Routes:    []*agentv1.Route{{Destination: "10.20.0.0/16", Gateway: "10.9.0.1"}, {Destination: "10.30.0.0/16"}},
		Ports:     []*agentv1.PortMapping{{HostIp: "192.0.2.1", HostPort: 8080, Port: 80, Protocol: "tcp"}},
		Bandwidth: &agentv1.Bandwidth{Ingress: &agentv1.Rate{Bits: 1e6, Burst: 8e4}},
		Labels:    map[string]string{"k8s.pod": "web-0"},
	}
}

func TestToRequest(t *testing.T) {
	r, err := toRequest(attachRequest(), "vm1")
	require.NoError(t, err)
	assert.Equal(t, vnic.Request{
		Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Network: "blue", Netns: "/run/netns/web", Manager: "cni",
		MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("fd00:9::5")},
		Queues: 2, MTU: 1400, NoDefaultRoute: true,
		Routes: []vnic.Route{
			{Destination: netip.MustParsePrefix("10.20.0.0/16"), Gateway: netip.MustParseAddr("10.9.0.1")},
			{Destination: netip.MustParsePrefix("10.30.0.0/16")},
		},
		Ports:     []vnic.PortMapping{{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 8080, Port: 80, Protocol: "tcp"}},
		Bandwidth: vnic.Bandwidth{Ingress: vnic.Rate{Bits: 1e6, Burst: 8e4}},
		Labels:    map[string]string{"k8s.pod": "web-0"},
	}, r)
	_, err = toRequest(&agentv1.AttachRequest{Pod: "web", Interface: "eth0"}, "vm1")
	require.NoError(t, err, "the rest has defaults")
}

func TestToRequestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(m *agentv1.AttachRequest)
		want  string
	}{
		{"pod", func(m *agentv1.AttachRequest) { m.Pod = "a\x1bb" }, "pod name"},
		{"interface", func(m *agentv1.AttachRequest) { m.Interface = "eth%d" }, "interface name"},
		{"network", func(m *agentv1.AttachRequest) { m.Network = "../x" }, "network name"},
		{"netns", func(m *agentv1.AttachRequest) { m.Netns = "a\nb" }, "netns"},
		{"long netns", func(m *agentv1.AttachRequest) { m.Netns = strings.Repeat("n", 5000) }, "netns of 5000 bytes"},
		{"handover with netns", func(m *agentv1.AttachRequest) { m.Handover = true }, "handed over"},
		{"mac", func(m *agentv1.AttachRequest) { m.Mac = "ff:ff:ff:ff:ff:ff" }, "no unicast address"},
		{"address", func(m *agentv1.AttachRequest) { m.Addresses = []string{"fe80::1%eth0"} }, "plain IPv4 or IPv6"},
		{"two addresses", func(m *agentv1.AttachRequest) { m.Addresses = []string{"10.9.0.5", "10.9.0.6"} }, "two addresses of one family"},
		{"many addresses", func(m *agentv1.AttachRequest) { m.Addresses = make([]string, 65) }, "65 addresses"},
		{"queues", func(m *agentv1.AttachRequest) { m.Queues = 1 << 31 }, "queues"},
		{"mtu", func(m *agentv1.AttachRequest) { m.Mtu = 1<<32 - 1 }, "mtu"},
		{"route", func(m *agentv1.AttachRequest) { m.Routes[0].Destination = "10.20.0.1/16" }, "not a network's address"},
		{"no route", func(m *agentv1.AttachRequest) { m.Routes[0] = nil }, "no prefix"},
		{"route's family", func(m *agentv1.AttachRequest) { m.Routes[0].Gateway = "fd00::1" }, "not of one family"},
		{"many routes", func(m *agentv1.AttachRequest) { m.Routes = make([]*agentv1.Route, 300) }, "300 routes"},
		{"port", func(m *agentv1.AttachRequest) { m.Ports[0].HostPort = 1 << 16 }, "no ports"},
		{"port 0", func(m *agentv1.AttachRequest) { m.Ports[0].Port = 0 }, "port 0"},
		{"protocol", func(m *agentv1.AttachRequest) { m.Ports[0].Protocol = "tcp; drop" }, "protocol"},
		{"host's address", func(m *agentv1.AttachRequest) { m.Ports[0].HostIp = "127.0.0.1" }, "no address that others"},
		{"same port", func(m *agentv1.AttachRequest) { m.Ports = append(m.Ports, m.Ports[0]) }, "overlap"},
		{"many ports", func(m *agentv1.AttachRequest) { m.Ports = make([]*agentv1.PortMapping, 300) }, "300 ports"},
		{"rate", func(m *agentv1.AttachRequest) { m.Bandwidth.Egress = &agentv1.Rate{Bits: 1} }, "egress rate"},
		{"manager", func(m *agentv1.AttachRequest) { m.Manager = "a\x00" }, "manager"},
		{"label", func(m *agentv1.AttachRequest) { m.Labels["x"] = "\x1b[2J" }, "label"},
		{"many labels", func(m *agentv1.AttachRequest) {
			for i := range 40 {
				m.Labels[strings.Repeat("l", i+1)] = ""
			}
		}, "labels are more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := attachRequest()
			tt.spoil(m)
			_, err := toRequest(m, "vm1")
			require.ErrorIs(t, err, vnic.ErrInvalid)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// Nothing of an order that makes no sense reaches the one who carries it out.
func TestOrdersAreChecked(t *testing.T) {
	h := newOrders(t, nil) // a call of it would panic
	h.orders = &patient{}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"attach":      func() error { _, err := h.Attach(ctx, &agentv1.AttachRequest{}); return err },
		"detach":      func() error { _, err := h.Detach(ctx, &agentv1.DetachRequest{Pod: "web"}); return err },
		"attachments": func() error { _, err := h.Attachments(ctx, &agentv1.AttachmentsRequest{Manager: "\x1b"}); return err },
		"check":       func() error { _, err := h.Check(ctx, &agentv1.HostCheckRequest{Interface: "eth0"}); return err },
		"ready":       func() error { _, err := h.Ready(ctx, &agentv1.ReadyRequest{Network: "a b"}); return err },
		"publish":     func() error { _, err := h.Publish(ctx, &agentv1.PublishRequest{}); return err },
		"reserve":     func() error { _, err := h.Reserve(ctx, &agentv1.ReserveRequest{Address: "x"}); return err },
		"unreserve":   func() error { _, err := h.Unreserve(ctx, &agentv1.UnreserveRequest{}); return err },
		"unreserve it": func() error {
			_, err := h.Unreserve(ctx, &agentv1.UnreserveRequest{Network: "blue", Addresses: []string{""}})
			return err
		},
	} {
		require.ErrorIs(t, rpcerr.Decode(call()), vnic.ErrInvalid, name)
	}
}

// A guest's flood takes as many turns as there are, and no more by new sessions.
func TestFloodOfOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{open: make(chan struct{})}
		first, second := newOrders(t, p), newOrders(t, p)
		second.turns = first.turns // as those of one VM are
		var wg sync.WaitGroup
		for i := range 3 * maxOrders {
			h := []*host{first, second}[i%2]
			wg.Go(func() { _, _ = h.Attach(t.Context(), attachRequest()) })
		}
		synctest.Wait()
		now, _ := p.count()
		assert.Equal(t, maxOrders, now)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := first.Attach(ctx, attachRequest())
		require.ErrorContains(t, rpcerr.Decode(err), "attach: wait for one of 64 orders to end")
		require.ErrorIs(t, rpcerr.Decode(err), context.DeadlineExceeded)
		close(p.open)
		wg.Wait()
		_, most := p.count()
		assert.Equal(t, maxOrders, most)
		first.turns.wait()
	})
}

func TestOrdersInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{open: make(chan struct{})}
		close(p.open)
		h := newOrders(t, p)
		began := time.Now()
		for range orderBurst {
			_, err := h.Attach(t.Context(), attachRequest())
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(began))
		for range 100 {
			_, err := h.Attach(t.Context(), attachRequest())
			require.NoError(t, err)
		}
		assert.Equal(t, 100*orderEvery, time.Since(began))
		// Those who give up cost no one else anything.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 1000 {
			_, err := h.Attach(ctx, attachRequest())
			require.ErrorIs(t, rpcerr.Decode(err), context.Canceled)
		}
		_, err := h.Attach(t.Context(), attachRequest())
		require.NoError(t, err)
		assert.Equal(t, 101*orderEvery, time.Since(began))
		<-time.After(time.Hour)
		began = time.Now()
		for range orderBurst {
			require.Zero(t, h.turns.reserve())
		}
		assert.NotZero(t, h.turns.reserve(), "an idle hour is not saved up")
		assert.Zero(t, time.Since(began))
	})
}

// An order ends with its session, and a new session waits for nothing of it.
func TestOrderEndsWithTheSession(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	client := hostclient.New(hostclient.Config{Grace: 200 * time.Millisecond})
	p := &patient{open: make(chan struct{})}
	l, events := newLinks(t, socket, Config{Orders: p})
	ctx, stop := context.WithCancel(t.Context())
	agent := make(chan error, 1)
	go func() {
		agent <- agentd.Run(ctx, agentd.Config{Agent: newFakeAgent(), Channel: "unix:" + socket, Client: client, Silence: time.Second})
	}()
	await(t, events, "the agent")
	called := make(chan error, 1)
	go func() {
		_, err := client.Attach(t.Context(), vnic.Request{Key: vnic.Key{Pod: "web", Interface: "eth0"}, Network: "blue", Manager: "cni"})
		called <- err
	}()
	require.Eventually(t, func() bool { now, _ := p.count(); return now == 1 }, testLimit, time.Millisecond)
	assert.Equal(t, "vm1", p.last.VM)
	stop()
	require.ErrorIs(t, await(t, called, "the call"), vnic.ErrHostUnavailable)
	require.ErrorIs(t, await(t, agent, "the agent's end"), context.Canceled)
	require.Eventually(t, func() bool { now, _ := p.count(); return now == 0 }, testLimit, time.Millisecond, "the order goes on")
	require.NoError(t, l.Close())
}

// An order that takes long to undo itself holds up no session, but its turn.
func TestOrderOutlivesTheSession(t *testing.T) {
	noLeaks(t)
	stubborn := &stubborn{begun: make(chan struct{}), open: make(chan struct{})}
	h := newOrders(t, stubborn)
	called := make(chan error, 1)
	go func() {
		_, err := h.Ready(t.Context(), &agentv1.ReadyRequest{})
		called <- err
	}()
	await(t, stubborn.begun, "the order")
	h.shut()
	require.ErrorIs(t, rpcerr.Decode(await(t, called, "the call's end")), vnic.ErrHostUnavailable)
	assert.Len(t, h.turns.slots, 1)
	close(stubborn.open)
	h.turns.wait()
	assert.Empty(t, h.turns.slots)
}

// stubborn doesn't heed its context.
type stubborn struct {
	Orders

	begun, open chan struct{}
}

func (s *stubborn) Ready(context.Context, string, string) error {
	close(s.begun)
	<-s.open
	return nil
}

// Reports get through while all turns are taken.
func TestReportDuringOrders(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	client, reports := hostclient.New(hostclient.Config{}), new(agentd.Reports)
	p := &patient{open: make(chan struct{})}
	_, events := newLinks(t, socket, Config{Orders: p})
	ctx, stop := context.WithCancel(t.Context())
	agent := make(chan error, 1)
	go func() {
		agent <- agentd.Run(ctx, agentd.Config{Agent: newFakeAgent(), Channel: "unix:" + socket, Client: client, Reports: reports, Silence: time.Second})
	}()
	await(t, events, "the agent")
	var wg sync.WaitGroup
	for range 2 * hostclient.MaxCalls {
		wg.Go(func() {
			_, err := client.Attach(t.Context(), vnic.Request{Key: vnic.Key{Pod: "web", Interface: "eth0"}, Network: "blue", Manager: "cni"})
			assert.NoError(t, err)
		})
	}
	require.Eventually(t, func() bool { now, _ := p.count(); return now == maxOrders }, testLimit, time.Millisecond)
	reports.Returned("0123456789", vnic.MAC{2, 0, 0, 0, 0, 1})
	assert.Equal(t, vnic.EventReturned, await(t, events, "the report").Kind)
	close(p.open)
	wg.Wait()
	stop()
	require.ErrorIs(t, await(t, agent, "the agent's end"), context.Canceled)
}

func TestCheckAndResolveThroughTheChannel(t *testing.T) {
	noLeaks(t)
	socket := socketIn(t)
	l, events := newLinks(t, socket, Config{})
	ctx, stop := context.WithCancel(t.Context())
	agent := make(chan error, 1)
	fake := newFakeAgent("web")
	good := vnic.Container{ID: strings.Repeat("a", 64), Name: "web", Pod: strings.Repeat("b", 64), Netns: "/proc/17/ns/net"}
	answers := map[string]vnic.Container{"web": good, "evil": {ID: "x", Pod: "../etc", Netns: "/x"}}
	go func() {
		agent <- agentd.Run(ctx, agentd.Config{Agent: fake, Channel: "unix:" + socket, Silence: time.Second, Resolve: func(_ context.Context, runtime, container string) (vnic.Container, error) {
			assert.Equal(t, "docker", runtime)
			if c, ok := answers[container]; ok {
				return c, nil
			}
			return vnic.Container{}, vnic.ErrUnknownContainer
		}})
	}()
	await(t, events, "the agent")
	c, err := l.Resolve(ctx, "vm1", "docker", "web")
	require.NoError(t, err)
	assert.Equal(t, good, c)
	_, err = l.Resolve(ctx, "vm1", "docker", "no")
	require.ErrorIs(t, err, vnic.ErrUnknownContainer)
	_, err = l.Resolve(ctx, "vm1", "docker", "evil")
	require.ErrorIs(t, err, errAnswer)
	_, err = l.Resolve(ctx, "vm1", "docker", strings.Repeat("x", 600))
	require.ErrorIs(t, err, vnic.ErrInvalid)

	m := testMove(1)
	fake.plug(m.MAC)
	require.ErrorIs(t, l.Check(ctx, "vm1", m), vnic.ErrDiffers)
	_, err = l.Configure(ctx, "vm1", m)
	require.NoError(t, err)
	require.NoError(t, l.Check(ctx, "vm1", m))
	h := vnic.Move{ID: m.ID, MAC: m.MAC, Interface: "eth0", Handover: true}
	require.NoError(t, l.Check(ctx, "vm1", h), "one that is handed over has no netns")
	_, _, err = l.Move(ctx, "vm1", h)
	require.NoError(t, err)
	require.NoError(t, l.Release(ctx, "vm1", h, false))
	stop()
	require.ErrorIs(t, await(t, agent, "the agent's end"), context.Canceled)
}

// The orders of a daemon that fail are told in its words.
func TestOrderFails(t *testing.T) {
	h := newOrders(t, failing{})
	_, err := h.Ready(t.Context(), &agentv1.ReadyRequest{})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrPoolExhausted)
	require.EqualError(t, rpcerr.Decode(err), "network blue: no free address")
	h.orders = nil
	_, err = h.Ready(t.Context(), &agentv1.ReadyRequest{})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnsupported)
}

type failing struct{ Orders }

func (failing) Ready(context.Context, string, string) error {
	return errors.Join(wrapped{vnic.ErrPoolExhausted})
}

type wrapped struct{ error }

func (w wrapped) Error() string { return "network blue: " + w.error.Error() }
func (w wrapped) Unwrap() error { return w.error }

func TestFillPart(t *testing.T) {
	list := make([]vnic.Attachment, 3*partCount/2)
	for i := range list {
		list[i] = vnic.Attachment{ID: vnic.NewID(), Request: vnic.Request{Labels: map[string]string{"x": strings.Repeat("y", i%400)}}}
	}
	seen := map[string]bool{}
	for after, more := "", true; more; {
		var resp agentv1.AttachmentsResponse
		fillPart(&resp, list, after)
		require.NotEmpty(t, resp.GetAttachments())
		assert.Less(t, proto.Size(&resp), partSize+1024)
		for _, a := range resp.GetAttachments() {
			require.Greater(t, a.GetId(), after)
			after, seen[a.GetId()] = a.GetId(), true
		}
		more = resp.GetMore()
	}
	assert.Len(t, slices.Collect(maps.Keys(seen)), len(list))
}

// FuzzOrders decodes what a guest may send; what gets through is whole.
func FuzzOrders(f *testing.F) {
	for _, m := range []proto.Message{
		attachRequest(), &agentv1.PublishRequest{Pod: "web", Interface: "eth0", Ports: attachRequest().GetPorts()},
		&agentv1.UnreserveRequest{Network: "blue", Addresses: []string{"10.9.0.5"}}, &agentv1.ReserveRequest{Network: "blue", Address: "fd00::1"},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var attach agentv1.AttachRequest
		if proto.Unmarshal(b, &attach) == nil {
			r, err := toRequest(&attach, "vm1")
			if err == nil {
				if r.Network == "" {
					r.Network = "any"
				}
				_, err = r.Complete()
				require.NoError(t, err)
				assert.Equal(t, r.Netns, printable(r.Netns))
			} else {
				require.ErrorIs(t, err, vnic.ErrInvalid)
			}
		}
		var publish agentv1.PublishRequest
		if proto.Unmarshal(b, &publish) == nil {
			ports, err := toPorts(publish.GetPorts())
			assert.True(t, err == nil || errors.Is(err, vnic.ErrInvalid))
			assert.LessOrEqual(t, len(ports), vnic.MaxPorts)
		}
		var unreserve agentv1.UnreserveRequest
		if proto.Unmarshal(b, &unreserve) == nil {
			addrs, err := toAddrs(unreserve.GetAddresses())
			assert.True(t, err == nil || errors.Is(err, vnic.ErrInvalid))
			assert.LessOrEqual(t, len(addrs), maxAddresses)
		}
		var resolved agentv1.ResolveResponse
		if proto.Unmarshal(b, &resolved) == nil {
			if c, err := toContainer(&resolved); err == nil {
				require.NoError(t, vnic.CheckPodName(c.Pod))
			}
		}
	})
}
