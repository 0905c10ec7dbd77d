package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// attached returns how many attachments a member has.
func (m *member) attached(ctx context.Context) int {
	list, err := m.orch.List(ctx, orchestrator.Filter{})
	if err != nil {
		return -1
	}
	return len(list)
}

// TestCallsGoToTheOwner: each call about what c has, made of a, is served by c and not
// by b, once.
func TestCallsGoToTheOwner(t *testing.T) {
	cl := newCluster(t, "a", "b", "c")
	a, b, c := cl.member("a"), cl.member("b"), cl.member("c")
	var id string
	for _, tt := range []struct {
		method string
		call   func(ctx context.Context) error
		want   error
	}{
		{"Attach", func(ctx context.Context) error {
			got, err := a.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "c1", Pod: "web"})
			id = got.GetId()
			return err
		}, nil},
		{"Get", func(ctx context.Context) error {
			got, err := a.client.Get(ctx, &brfusev1.GetRequest{Id: id})
			assert.Equal(t, "c1", got.GetVm())
			return err
		}, nil},
		{"Path", func(ctx context.Context) error {
			_, err := a.client.Path(ctx, &brfusev1.PathRequest{Vm: "c1", Pod: "web"})
			return err
		}, nil},
		{"Detach", func(ctx context.Context) error {
			got, err := a.client.Detach(ctx, &brfusev1.DetachRequest{Id: id})
			assert.Len(t, got.GetDetached(), 1)
			return err
		}, nil},
		{"Detach", func(ctx context.Context) error {
			_, err := a.client.Detach(ctx, &brfusev1.DetachRequest{Vm: "c1", Pod: "web"})
			return err
		}, nil},
		{"SetPool", func(ctx context.Context) error {
			got, err := a.client.SetPool(ctx, &brfusev1.SetPoolRequest{Vm: "c2", Network: "blue", Low: 1, High: 1})
			assert.Equal(t, "c2", got.GetVm())
			return err
		}, nil},
		{"RemovePool", func(ctx context.Context) error {
			_, err := a.client.RemovePool(ctx, &brfusev1.RemovePoolRequest{Vm: "c2", Network: "blue"})
			return err
		}, nil},
		{"MigrateVM", func(ctx context.Context) error {
			_, err := a.client.MigrateVM(ctx, &brfusev1.MigrateVMRequest{Name: "c2", Qmp: "/run/new.qmp", Channel: "nowhere"})
			return err
		}, vnic.ErrInvalid},
		{"RemoveVM", func(ctx context.Context) error {
			_, err := a.client.RemoveVM(ctx, &brfusev1.RemoveVMRequest{Name: "c2"})
			return err
		}, nil},
	} {
		t.Run(tt.method, func(t *testing.T) {
			before, other := c.log.calls(tt.method), b.log.calls(tt.method)
			err := rpcerr.Decode(tt.call(t.Context()))
			if tt.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tt.want)
			}
			assert.Equal(t, before+1, c.log.calls(tt.method))
			assert.Equal(t, other, b.log.calls(tt.method))
		})
	}
	assert.Zero(t, a.attached(t.Context())+b.attached(t.Context())+c.attached(t.Context()))
}

// TestOwnCallsStay: what a has, and what nobody has, is served by a alone.
func TestOwnCallsStay(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	ctx := t.Context()
	c.stop(t)
	got, err := a.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "a1", Pod: "web"})
	require.NoError(t, err)
	_, err = a.client.Get(ctx, &brfusev1.GetRequest{Id: got.GetId()})
	require.NoError(t, err)
	_, err = a.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "d1", Pod: "web"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnknownVM)
	_, err = a.client.Get(ctx, &brfusev1.GetRequest{Id: "0123456789"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrNotFound)
	_, err = a.client.Get(ctx, &brfusev1.GetRequest{Id: "nonsense"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInvalid)
	_, err = a.client.AddVM(ctx, &brfusev1.AddVMRequest{Name: "a3", Qmp: "/run/a3.qmp", Channel: "/run/a3.agent"})
	require.NoError(t, err)
	_, err = a.orch.VM(ctx, "a3")
	require.NoError(t, err)
	a.change(func(m *member) { m.lies["a1"] = "error" })
	_, err = a.client.Attach(ctx, &brfusev1.AttachRequest{Vm: "a1", Pod: "web"})
	require.ErrorContains(t, err, assert.AnError.Error(), "an owner that can't be learned is not taken for the own one")
}

// TestErrorsPassThrough: they are the same by c and by a, for people and for programs.
func TestErrorsPassThrough(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	for _, tt := range []struct {
		name string
		req  *brfusev1.AttachRequest
		plug error
		code codes.Code
		want error
	}{
		{"pod", &brfusev1.AttachRequest{Vm: "c1", Pod: "nope"}, nil, codes.NotFound, vnic.ErrUnknownPod},
		{"network", &brfusev1.AttachRequest{Vm: "c1", Pod: "web", Network: "red"}, nil, codes.NotFound, vnic.ErrUnknownNetwork},
		{"address", &brfusev1.AttachRequest{Vm: "c1", Pod: "web", Addresses: []string{"10.9.9.9"}}, nil, codes.InvalidArgument, vnic.ErrAddressOutside},
		{"guest away", &brfusev1.AttachRequest{Vm: "c1", Pod: "web"}, vnic.ErrAgentUnavailable, codes.Unavailable, vnic.ErrAgentUnavailable},
		{"any", &brfusev1.AttachRequest{Vm: "c1", Pod: "web"}, errors.New("disk on fire"), codes.Unknown, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.plug != nil {
				c.world.Before("plug", func(context.Context) error { return tt.plug })
				defer c.world.Before("plug", nil)
			}
			_, direct := c.client.Attach(t.Context(), tt.req)
			_, err := a.client.Attach(t.Context(), tt.req)
			assert.Equal(t, tt.code, status.Code(err))
			assert.Equal(t, status.Convert(direct).Message(), status.Convert(err).Message())
			if tt.want != nil {
				assert.ErrorIs(t, rpcerr.Decode(err), tt.want)
			}
		})
	}
}

// TestLoopGuard: a and b each believe that the other one has a VM.
func TestLoopGuard(t *testing.T) {
	cl := newCluster(t, "a", "b")
	a, b := cl.member("a"), cl.member("b")
	a.change(func(m *member) { m.lies["x1"] = "b" })
	b.change(func(m *member) { m.lies["x1"] = "a" })
	_, err := a.client.Attach(t.Context(), &brfusev1.AttachRequest{Vm: "x1", Pod: "web"})
	require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrUnknownVM)
	assert.Equal(t, 1, a.log.calls("Attach"))
	assert.Equal(t, 1, b.log.calls("Attach"))
}

// TestCallerGivesUp: what the owner does for it ends, and is undone.
func TestCallerGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		give func(t *testing.T, under <-chan struct{}) context.Context
		want codes.Code
	}{
		{"cancel", func(t *testing.T, under <-chan struct{}) context.Context {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-under
				cancel()
			}()
			return ctx
		}, codes.Canceled},
		{"deadline", func(t *testing.T, _ <-chan struct{}) context.Context {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}, codes.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cl := newCluster(t, "a", "c")
			a, c := cl.member("a"), cl.member("c")
			under, ended := make(chan struct{}), make(chan struct{})
			c.world.Before("move", func(ctx context.Context) error {
				close(under)
				<-ctx.Done()
				close(ended)
				return ctx.Err()
			})
			_, err := a.client.Attach(tt.give(t, under), &brfusev1.AttachRequest{Vm: "c1", Pod: "web"})
			assert.Equal(t, tt.want, status.Code(err))
			await(t, ended, "the owner's step to end")
			require.Eventually(t, func() bool { return c.attached(t.Context()) == 0 }, 10*time.Second, 10*time.Millisecond)
		})
	}
}

// await waits for what a test can't go on without.
func await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "waited in vain for "+what)
	}
}

// TestBenchOfAnother is followed through a, and ends with a's client.
func TestBenchOfAnother(t *testing.T) {
	cl := newCluster(t, "a", "c")
	a, c := cl.member("a"), cl.member("c")
	s := served{client: a.client}
	req := &brfusev1.BenchRequest{Vm: "c1", Peer: "c2", Rounds: 1, Time: durationpb.New(time.Second), Workloads: []string{"udp_stream/64"}}
	told, err := follow(t.Context(), s, req, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"native udp_stream/64", "nat udp_stream/64", "fused udp_stream/64", "done blue 192.0.2.1"}, told)

	_, err = follow(t.Context(), s, &brfusev1.BenchRequest{Vm: "c1", Peer: "a1"}, nil)
	require.ErrorIs(t, err, vnic.ErrUnknownVM)

	c.bench.hang = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = follow(ctx, s, req, func() {
		if len(c.bench.opened()) > 0 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return len(c.bench.opened()) == 0 }, 10*time.Second, 10*time.Millisecond)
}
