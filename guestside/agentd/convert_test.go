package agentd

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

func request() *agentv1.MoveRequest {
	return &agentv1.MoveRequest{
		Id: "0123456789", Mac: "02:00:5e:00:53:01", Netns: "/run/netns/web", Interface: "eth0", Mtu: 1400, Queues: 2,
		Addresses:  []string{"10.1.0.2/24", "fd00::2/64"},
		Routes:     []*agentv1.Route{{Destination: "0.0.0.0/0", Gateway: "10.1.0.1"}, {Destination: "fd01::/64"}},
		Neighbours: []*agentv1.Neighbour{{Address: "10.1.0.1", Mac: "02:00:5e:00:53:99"}},
	}
}

func TestToMove(t *testing.T) {
	m, err := toMove(request())
	require.NoError(t, err)
	assert.Equal(t, vnic.Move{
		ID: "0123456789", MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, Netns: "/run/netns/web", Interface: "eth0", MTU: 1400, Queues: 2,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
		Routes: []vnic.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Destination: netip.MustParsePrefix("fd01::/64")},
		},
		Neighbours: []vnic.Neighbour{{Address: netip.MustParseAddr("10.1.0.1"), MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 0x99}}},
	}, m)
}

// What is handed over has no pod that the daemon knows.
func TestHandoverTarget(t *testing.T) {
	r := request()
	r.Handover, r.Netns, r.Addresses, r.Routes, r.Neighbours = true, "", nil, nil, nil
	m, err := toMove(r)
	require.NoError(t, err)
	assert.Equal(t, vnic.Move{ID: "0123456789", MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, Interface: "eth0", MTU: 1400, Queues: 2, Handover: true}, m)
	r.Netns = "web"
	_, err = toMove(r)
	require.ErrorIs(t, err, vnic.ErrInvalid)
	p := &agentv1.PrepareRequest{Id: r.GetId(), Mac: r.GetMac(), Interface: "eth0", Handover: true}
	m, err = target(p, p.GetHandover())
	require.NoError(t, err)
	assert.True(t, m.Handover)
}

func TestToMoveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*agentv1.MoveRequest)
		want  string
	}{
		{"id", func(r *agentv1.MoveRequest) { r.Id = "x" }, `attachment id "x"`},
		{"mac", func(r *agentv1.MoveRequest) { r.Mac = "" }, `mac ""`},
		{"interface", func(r *agentv1.MoveRequest) { r.Interface = "a/b" }, `interface name "a/b"`},
		{"no netns", func(r *agentv1.MoveRequest) { r.Netns = "" }, `netns "" is no name`},
		{"parent", func(r *agentv1.MoveRequest) { r.Netns = ".." }, `netns ".." is no name`},
		{"relative", func(r *agentv1.MoveRequest) { r.Netns = "../web" }, `netns "../web" is a relative path`},
		{"not clean", func(r *agentv1.MoveRequest) { r.Netns = "/run/../etc" }, `netns "/run/../etc" is no clean path, meant "/etc"?`},
		{"zero byte", func(r *agentv1.MoveRequest) { r.Netns = "a\x00b" }, "is no name"},
		{"long", func(r *agentv1.MoveRequest) { r.Netns = strings.Repeat("x", 5000) }, "is no name"},
		{"mtu", func(r *agentv1.MoveRequest) { r.Mtu = 1 }, "mtu 1 is not in"},
		{"queues", func(r *agentv1.MoveRequest) { r.Queues = 1000 }, "queues 1000 is more than 256"},
		{"address", func(r *agentv1.MoveRequest) { r.Addresses = []string{"10.0.0.1"} }, "address: "},
		{"route", func(r *agentv1.MoveRequest) { r.Routes = []*agentv1.Route{{}} }, `route to "": no prefix`},
		{"gateway", func(r *agentv1.MoveRequest) { r.Routes[0].Gateway = "x" }, "route to 0.0.0.0/0: "},
		{"families", func(r *agentv1.MoveRequest) { r.Routes[0].Gateway = "::1" }, "not of one family"},
		{"neighbour", func(r *agentv1.MoveRequest) { r.Neighbours[0].Address = "" }, "neighbour: "},
		{"neighbour's mac", func(r *agentv1.MoveRequest) { r.Neighbours[0].Mac = "x" }, `neighbour 10.1.0.1: mac "x"`},
		{"many addresses", func(r *agentv1.MoveRequest) { r.Addresses = make([]string, 2000) }, "more than 1024"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			tt.spoil(r)
			_, err := toMove(r)
			require.ErrorIs(t, err, vnic.ErrInvalid)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzToMove(f *testing.F) {
	seed, err := proto.Marshal(request())
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r agentv1.MoveRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		m, err := toMove(&r)
		if err != nil {
			require.ErrorIs(t, err, vnic.ErrInvalid)
			return
		}
		require.NoError(t, vnic.CheckInterface(m.Interface))
		assert.Equal(t, m.Handover, m.Netns == "")
		assert.False(t, m.MAC.IsZero())
	})
}

// moody is a host that refuses reports as it is told to.
type moody struct {
	answers []error // of the next reports; then all are taken
	got     []string
}

func (m *moody) Report(_ context.Context, r *agentv1.ReportRequest) (*agentv1.ReportResponse, error) {
	m.got = append(m.got, r.GetMac())
	if len(m.answers) == 0 {
		return &agentv1.ReportResponse{}, nil
	}
	err := m.answers[0]
	m.answers = m.answers[1:]
	return nil, rpcerr.Encode(err)
}

// Whoever is root in a pod may name its vNIC as he likes, and give it addresses
// without end. The daemon has to understand the list all the same, even when
// all pods do so in a guest with every slot that there can be.
func TestListOfHostilePods(t *testing.T) {
	n := vnic.NIC{
		ID: vnic.NewID(), MAC: vnic.NewMAC(), PCI: "0000:1f:1e.0", Driver: "virtio_net", Netns: "cni-" + strings.Repeat("0", 36),
		Interface: "a\xff\x1b\u202e", Addresses: make([]netip.Prefix, 100_000),
	}
	for i := range n.Addresses {
		n.Addresses[i] = netip.MustParsePrefix("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128")
	}
	list := fromNICs(slices.Repeat([]vnic.NIC{n}, 434))
	assert.Equal(t, "a???", list[0].GetInterface())
	assert.Len(t, list[0].GetAddresses(), maxTold)
	b, err := proto.Marshal(&agentv1.ListResponse{Nics: list})
	require.NoError(t, err)
	assert.Less(t, len(b), 252<<10, "what one message holds")
}

func TestReportsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var r Reports
		host := &moody{answers: []error{errors.New("not now"), vnic.ErrInUse, vnic.ErrInvalid}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.tell(ctx, host, slog.New(slog.DiscardHandler))
		}()
		began := time.Now()
		first, second := vnic.MAC{2, 0, 0, 0, 0, 1}, vnic.MAC{2, 0, 0, 0, 0, 2}
		r.Returned("0123456789", first)
		r.Returned("0123456789", first)
		r.Returned("", second)
		<-time.After(time.Minute)
		synctest.Wait()
		// The third answer refuses the first report for good.
		assert.Equal(t, []string{first.String(), first.String(), first.String(), second.String()}, host.got)
		assert.Equal(t, time.Minute, time.Since(began))
		assert.Empty(t, r.queue)
		cancel()
		<-done
	})
}

func TestReportsAreBounded(t *testing.T) {
	var r Reports
	for i := range 3 * maxReports {
		r.Returned("", vnic.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	assert.Len(t, r.queue, maxReports)
}

func TestRunRefusesChannels(t *testing.T) {
	require.ErrorIs(t, Run(t.Context(), Config{Channel: "tcp:1"}), vnic.ErrInvalid)
	require.Error(t, Run(t.Context(), Config{Channel: "unix:/does/not/exist/agent.sock"}))
}

func TestCallsWithoutDeadlineGetOne(t *testing.T) {
	ctx, cancel := limit(t.Context())
	defer cancel()
	dl, ok := ctx.Deadline()
	assert.True(t, ok)
	assert.WithinDuration(t, time.Now().Add(callLimit), dl, time.Second)
}

// A vNIC that was just plugged for a pool has no pod to be retrieved from.
func TestToRetrieval(t *testing.T) {
	r := &agentv1.MoveRequest{Id: "0123456789", Mac: "02:00:5e:00:53:01", Mtu: 1400, Queues: 2}
	m, err := toRetrieval(r)
	require.NoError(t, err)
	want := vnic.Move{ID: "0123456789", MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, MTU: 1400, Queues: 2}
	assert.Equal(t, want, m)
	r.Netns, r.Interface, r.Addresses = "/run/netns/web", "eth0", []string{"not heeded"}
	m, err = toRetrieval(r)
	require.NoError(t, err)
	want.Netns = "/run/netns/web"
	assert.Equal(t, want, m)
	for _, spoil := range []func(*agentv1.MoveRequest){
		func(r *agentv1.MoveRequest) { r.Id = "x" },
		func(r *agentv1.MoveRequest) { r.Mac = "x" },
		func(r *agentv1.MoveRequest) { r.Netns = "../web" },
		func(r *agentv1.MoveRequest) { r.Mtu = 1 },
	} {
		bad := proto.CloneOf(r)
		spoil(bad)
		_, err := toRetrieval(bad)
		require.ErrorIs(t, err, vnic.ErrInvalid)
	}
}
