package guestlink

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	err := await(t, called, "the call's end")
	assert.Equal(t, codes.Unavailable, status.Code(err))
	assert.Empty(t, vnic.CodeOf(rpcerr.Decode(err)), "an agent that still gets this asks again")
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
	require.NoError(t, l.Release(ctx, "vm1", h))
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
