package hostclient

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// session is one that nothing is called in.
type session struct{ dead atomic.Bool }

func (*session) Client() *ttrpc.Client { return nil }
func (s *session) Alive() bool         { return !s.dead.Load() }

// What becomes of an error, and how often a call is made.
func TestCall(t *testing.T) {
	closed := status.Error(codes.Unavailable, "session closed")
	for _, tt := range []struct {
		name  string
		errs  []error // of one call after the other
		kills bool    // the first call's session ends
		next  bool    // there is another session after it
		calls int
		want  error
	}{
		{"fine", []error{nil}, false, false, 1, nil},
		{"an answer", []error{rpcerr.Encode(vnic.ErrNoSlot)}, false, false, 1, vnic.ErrNoSlot},
		{"an answer as the session ends", []error{rpcerr.Encode(vnic.ErrNoSlot)}, true, true, 1, vnic.ErrNoSlot},
		{"plain answer", []error{rpcerr.Encode(errAnswer)}, true, true, 1, nil},
		{"session ends", []error{errors.New("closed by the other side"), nil}, true, true, 2, nil},
		{"session is about to end", []error{closed, nil}, false, true, 2, nil},
		{"twice", []error{closed, closed}, false, true, 2, vnic.ErrHostUnavailable},
		{"no other session", []error{closed}, true, false, 1, vnic.ErrHostUnavailable},
		{"a malformed answer", []error{errAnswer}, false, false, 1, errAnswer},
		{"the daemon's time is up", []error{rpcerr.Encode(context.DeadlineExceeded)}, false, false, 1, vnic.ErrHostUnavailable},
		{"an old daemon", []error{status.Error(codes.Unimplemented, "method Attach")}, false, false, 1, vnic.ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Config{})
				first := new(session)
				c.Set(first)
				calls, began := 0, time.Now()
				err := c.call(t.Context(), "attach web/eth0", time.Minute, func(context.Context, agentv1.HostService) error {
					calls++
					if calls == 1 {
						first.dead.Store(tt.kills)
						time.AfterFunc(time.Second, func() {
							c.Set(nil)
							if tt.next {
								c.Set(new(session))
							}
						})
					}
					if calls == 2 {
						assert.Equal(t, time.Second, time.Since(began), "not in the next session")
					}
					return tt.errs[calls-1]
				})
				assert.Equal(t, tt.calls, calls)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				} else if tt.name != "plain answer" {
					require.NoError(t, err)
				}
			})
		})
	}
}

func TestCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		c.Set(new(session))
		var now, most atomic.Int32
		open := make(chan struct{})
		results := make(chan error)
		for range 2 * MaxCalls {
			go func() {
				results <- c.call(t.Context(), "list", time.Minute, func(context.Context, agentv1.HostService) error {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					<-open
					return nil
				})
			}()
		}
		synctest.Wait()
		assert.EqualValues(t, MaxCalls, most.Load())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.call(ctx, "list", time.Minute, nil)
		require.ErrorIs(t, err, vnic.ErrHostUnavailable, "its turn never came")
		close(open)
		for range 2 * MaxCalls {
			require.NoError(t, <-results)
		}
		assert.EqualValues(t, MaxCalls, most.Load())
	})
}

func TestNotify(t *testing.T) {
	c := New(Config{})
	early := c.Notify()
	assert.Empty(t, early)
	c.Set(new(session))
	c.Set(nil)
	c.Set(new(session))
	late := c.Notify()
	assert.Len(t, early, 1)
	assert.Len(t, late, 1)
	<-early
	c.Set(nil)
	assert.Empty(t, early)
	c.Set(new(session))
	assert.Len(t, early, 1)
}

func TestParts(t *testing.T) {
	part := func(more bool, ids ...string) *agentv1.AttachmentsResponse {
		resp := &agentv1.AttachmentsResponse{More: more}
		for _, id := range ids {
			resp.Attachments = append(resp.Attachments, &agentv1.Attachment{Id: id})
		}
		return resp
	}
	list, err := appendPart(nil, part(true, "0000000001", "0000000002"))
	require.NoError(t, err)
	assert.Len(t, list, 2)
	for _, bad := range []*agentv1.AttachmentsResponse{
		part(true), part(false, "0000000002"), part(false, "x"), part(false, "0000000003", "0000000003"),
	} {
		_, err := appendPart(list, bad)
		require.ErrorIs(t, err, errAnswer)
	}
}

func FuzzAttachment(f *testing.F) {
	seed, err := proto.Marshal(&agentv1.Attachment{
		Id: "0123456789", Mac: "02:00:5e:00:53:01", Addresses: []string{"10.9.0.2/24"}, Gateways: []string{"10.9.0.1"},
		Routes: []*agentv1.Route{{Destination: "0.0.0.0/0", Gateway: "10.9.0.1"}},
		Ports:  []*agentv1.PortMapping{{HostIp: "192.0.2.1", HostPort: 8080, Port: 80, Protocol: "tcp"}},
	})
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m agentv1.Attachment
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		if a, err := toAttachment(&m); err == nil {
			assert.NotEmpty(t, a.ID)
		}
	})
}

// A vNIC from a pool has an id of its own.
func TestAttachmentDevice(t *testing.T) {
	for _, tt := range []struct {
		name, device string
		want         vnic.ID
		bad          bool
	}{
		{name: "its own vnic", want: "0123456789"},
		{name: "a pool's", device: "abcdef0123", want: "abcdef0123"},
		{name: "no id", device: "../etc", bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := toAttachment(&agentv1.Attachment{Id: "0123456789", Device: tt.device})
			if tt.bad {
				require.ErrorIs(t, err, errAnswer)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, vnic.ID("0123456789"), a.ID)
			assert.Equal(t, tt.want, a.VNIC())
		})
	}
}
