package guestlink

import (
	"errors"
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

func TestAnswersAreChecked(t *testing.T) {
	good := func() *agentv1.NIC {
		return &agentv1.NIC{Id: "0123456789", Mac: "02:00:5e:00:53:01", Pci: "0000:00:01.0", Interface: "eth0", Addresses: []string{"10.0.0.1/8"}}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*agentv1.NIC)
		want  string
	}{
		{"id", func(n *agentv1.NIC) { n.Id = "../../etc" }, "attachment id"},
		{"mac", func(n *agentv1.NIC) { n.Mac = "ff:ff:ff:ff:ff:ff" }, "no unicast address"},
		{"no mac", func(n *agentv1.NIC) { n.Mac = "" }, "not an Ethernet address"},
		{"escape sequence", func(n *agentv1.NIC) { n.Driver = "\x1b[2J" }, `unprintable text "\x1b[2J"`},
		{"not UTF-8", func(n *agentv1.NIC) { n.Netns = "\xff" }, `unprintable text "\xff"`},
		{"long name", func(n *agentv1.NIC) { n.Interface = "0123456789abcdef" }, "text of 16 bytes, at most 15"},
		{"long path", func(n *agentv1.NIC) { n.Netns = strings.Repeat("x", 5000) }, "text of 5000 bytes, at most 4096"},
		{"address", func(n *agentv1.NIC) { n.Addresses = []string{"10.0.0.1"} }, "no '/'"},
		{"many addresses", func(n *agentv1.NIC) { n.Addresses = make([]string, 65) }, "65 addresses of one vnic"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := good()
			_, err := toNIC(n)
			require.NoError(t, err)
			tt.spoil(n)
			_, err = toNIC(n)
			require.ErrorIs(t, err, errAnswer)
			require.ErrorContains(t, err, tt.want)
			assert.Empty(t, vnic.CodeOf(err), "an agent's nonsense is not the caller's")
		})
	}
	_, err := toNIC(nil)
	require.ErrorIs(t, err, errAnswer)
	_, err = toOwnNIC(good(), vnic.MAC{2, 0, 0, 0, 0, 9})
	require.ErrorContains(t, err, "vnic 02:00:5e:00:53:01 instead of 02:00:00:00:00:09")
	_, err = toNICs(make([]*agentv1.NIC, maxNICs+1))
	require.ErrorIs(t, err, errAnswer)
	_, err = toInfo(&agentv1.InfoResponse{Version: strings.Repeat("v", 600)})
	require.ErrorIs(t, err, errAnswer)
	assert.Equal(t, time.Duration(0), toDuration(-5))
	assert.Equal(t, time.Hour, toDuration(1<<62))
}

func TestAgentsErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		code vnic.Code
		text string
	}{
		{"may say", rpcerr.Encode(vnic.ErrNameTaken), "name_taken", "interface name taken"},
		{"may not say", rpcerr.Encode(vnic.ErrUnknownVM), "", "unknown vm"},
		{"plain", rpcerr.Encode(errors.New("oops")), "", "oops"},
		{"unprintable", rpcerr.Encode(errors.New("a\x1b]0;x\ab\nc")), "", "a?]0;x?b?c"},
		{"long", rpcerr.Encode(errors.New(strings.Repeat("x", 10000))), "", strings.Repeat("x", maxPath) + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := toError(tt.err)
			assert.Equal(t, tt.code, vnic.CodeOf(err))
			assert.Equal(t, tt.text, err.Error())
		})
	}
}

func TestReportsAreChecked(t *testing.T) {
	returned := agentv1.ReportRequest_KIND_RETURNED
	for _, tt := range []struct {
		name string
		req  *agentv1.ReportRequest
		want error
	}{
		{"nothing", &agentv1.ReportRequest{}, vnic.ErrUnsupported},
		{"unknown kind", &agentv1.ReportRequest{Kind: 99, Mac: "02:00:00:00:00:01"}, vnic.ErrUnsupported},
		{"id", &agentv1.ReportRequest{Kind: returned, Id: "0", Mac: "02:00:00:00:00:01"}, vnic.ErrInvalid},
		{"mac", &agentv1.ReportRequest{Kind: returned, Mac: "01:00:00:00:00:01"}, vnic.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost("vm1", func(ev vnic.Event) { assert.Fail(t, "event", "%v", ev) })
			h.open()
			_, err := h.Report(t.Context(), tt.req)
			require.ErrorIs(t, rpcerr.Decode(err), tt.want)
		})
	}
}

func TestReportsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		h := newHost("vm1", func(vnic.Event) { events++ })
		h.open()
		req := &agentv1.ReportRequest{Kind: agentv1.ReportRequest_KIND_RETURNED, Mac: "02:00:00:00:00:01"}
		for range 2 * reportBurst {
			_, _ = h.Report(t.Context(), req)
		}
		assert.Equal(t, reportBurst, events)
		_, err := h.Report(t.Context(), req)
		require.ErrorIs(t, rpcerr.Decode(err), vnic.ErrInUse)
		<-time.After(10 * reportEvery)
		for range 20 {
			_, _ = h.Report(t.Context(), req)
		}
		assert.Equal(t, reportBurst+10, events)
		h.shut()
		_, err = h.Report(t.Context(), req)
		require.ErrorContains(t, err, "session closed")
	})
}

func FuzzAnswer(f *testing.F) {
	seed, err := proto.Marshal(&agentv1.ListResponse{Nics: []*agentv1.NIC{{Id: "0123456789", Mac: "02:00:5e:00:53:01", Addresses: []string{"fd00::1/64"}}}})
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var list agentv1.ListResponse
		if proto.Unmarshal(b, &list) != nil {
			return
		}
		nics, err := toNICs(list.GetNics())
		if err != nil {
			require.ErrorIs(t, err, errAnswer)
			return
		}
		for _, n := range nics {
			assert.False(t, n.MAC.IsZero())
			assert.Equal(t, n.Netns, printable(n.Netns))
			assert.LessOrEqual(t, len(n.Interface), 15)
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add(int32(1), "0123456789", "02:00:5e:00:53:01")
	f.Fuzz(func(t *testing.T, kind int32, id, mac string) {
		h := newHost("vm1", func(ev vnic.Event) {
			assert.Equal(t, "vm1", ev.VM)
			assert.Equal(t, vnic.EventReturned, ev.Kind)
			assert.False(t, ev.MAC.IsZero())
			if ev.ID != "" {
				_, err := vnic.ParseID(string(ev.ID))
				assert.NoError(t, err)
			}
		})
		h.open()
		_, _ = h.Report(t.Context(), &agentv1.ReportRequest{Kind: agentv1.ReportRequest_Kind(kind), Id: id, Mac: mac})
	})
}
