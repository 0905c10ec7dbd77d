package cnid_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/cnid"
	"github.com/brfuse/brfuse/vnic"
)

func TestAdd(t *testing.T) {
	l := newLab(t, func(c *cnid.Config) { c.Network = "blue" })
	r := request(cniapi.Add, 1)
	r.Attach.VM, r.Attach.Manager, r.Attach.Handover = "other", "docker", true // not for the plugin to say
	resp := l.call(r)
	require.Nil(t, resp.Error)
	require.NotNil(t, resp.Attachment)
	got := resp.Attachment.Request
	assert.Equal(t, vnic.Key{Pod: "c1", Interface: "eth0"}, got.Key)
	assert.Equal(t, "cni", got.Manager)
	assert.False(t, got.Handover)
	assert.Equal(t, "blue", got.Network, "the agent's default")
	assert.Equal(t, ownNetns, got.Netns)

	r = request(cniapi.Add, 2)
	r.Attach.Network = "red"
	assert.Equal(t, "red", l.call(r).Attachment.Request.Network)
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		code uint
		text string
	}{
		{"unknown pod", vnic.ErrUnknownPod, 4, "CNI_NETNS"},
		{"name taken", vnic.ErrNameTaken, 4, "CNI_IFNAME eth0"},
		{"unknown network", vnic.ErrUnknownNetwork, 7, "brfuse network list"},
		{"invalid", vnic.ErrInvalid, 7, ""},
		{"outside", vnic.ErrAddressOutside, 7, "subnets"},
		{"no slot", &vnic.NoSlotError{VM: "v", Used: 3, Total: 3}, 11, "brfuse topology"},
		{"no address", vnic.ErrPoolExhausted, 11, "larger subnet"},
		{"agent", vnic.ErrAgentUnavailable, 11, "brfuse-agent runs"},
		{"host", vnic.ErrHostUnavailable, 11, "brfused runs"},
		{"vm gone", vnic.ErrVMGone, 11, ""},
		{"unknown vm", vnic.ErrUnknownVM, 11, "brfuse vm add"},
		{"late", context.DeadlineExceeded, 11, `"timeout"`},
		{"nic missing", vnic.ErrNICMissing, 11, ""},
		{"address taken", vnic.ErrAddressTaken, 100, "ask for another"},
		{"port taken", vnic.ErrPortTaken, 101, "another port"},
		{"forbidden", vnic.ErrForbidden, 102, "--guest-network"},
		{"conflict", vnic.ErrConflict, 103, ""},
		{"unsupported", vnic.ErrUnsupported, 105, ""},
		{"other", errTest, 999, "test is over"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.host.set("attach", fmt.Errorf("attach: %w", tt.err))
			l.host.set("ready", fmt.Errorf("ready: %w", tt.err))
			resp := l.call(request(cniapi.Add, 1))
			require.NotNil(t, resp.Error)
			assert.Equal(t, tt.code, resp.Error.Code)
			assert.Contains(t, resp.Error.Error(), tt.text)
			assert.NotEmpty(t, resp.Error.Msg)
			assert.Contains(t, resp.Error.Details, tt.err.Error())

			resp = l.call(cniapi.Request{Verb: cniapi.Status})
			require.NotNil(t, resp.Error)
			assert.Equal(t, uint(50), resp.Error.Code, "an ADD would fail")
			require.ErrorIs(t, l.stop(), errTest)
			assert.False(t, l.host.called("detach c1 eth0"), "the host has undone it by itself")
		})
	}
}

func TestAddLooksIntoThePodFirst(t *testing.T) {
	for _, tt := range []struct {
		name, netns string
		agent       error
		text        string
	}{
		{"second ADD", ownNetns, fmt.Errorf("it has one: %w", vnic.ErrNameTaken), "CNI_IFNAME eth0"},
		{"the vm's own namespace", ownNetns, fmt.Errorf("the vm's own: %w", vnic.ErrInvalid), "CNI_NETNS"},
		{"none", "/nowhere", nil, "CNI_NETNS"},
		{"no path", "blue", nil, "CNI_NETNS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.agent.nameFree = tt.agent
			r := request(cniapi.Add, 1)
			r.Attach.Netns = tt.netns
			resp := l.call(r)
			require.NotNil(t, resp.Error)
			assert.Equal(t, uint(4), resp.Error.Code)
			assert.Contains(t, resp.Error.Msg, tt.text)
			assert.Empty(t, l.host.calls)
		})
	}
}

// When the plugin is killed during ADD, what the host made is taken back, and a
// DEL that comes meanwhile waits for that.
func TestPluginKilled(t *testing.T) {
	l := newLab(t, nil)
	release := l.host.hold("attach")
	defer release()
	letDetach := l.host.hold("detach")
	defer letDetach()
	conn := l.send(request(cniapi.Add, 1))
	require.Eventually(t, func() bool { return l.host.called("attach c1 eth0") }, wait, time.Millisecond)
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return l.host.called("detach c1 eth0") }, wait, time.Millisecond)

	release()
	again := l.send(request(cniapi.Add, 1)) // a runtime that doesn't DEL first
	defer again.Close()
	assert.Never(t, func() bool { return l.host.count("attach c1 eth0") > 1 }, 50*time.Millisecond, time.Millisecond, "it waits")
	letDetach()
	assert.Nil(t, l.receive(again).Error)
	require.ErrorIs(t, l.stop(), errTest)
	assert.Equal(t, []cniapi.Attachment{{ContainerID: "c1", Interface: "eth0"}}, l.host.keys(),
		"what was taken back was the first one, not the second")
}

// The server gives up a call at the time that the plugin set.
func TestTimeout(t *testing.T) {
	l := newLab(t, nil)
	defer l.host.hold("attach")()
	r := request(cniapi.Add, 1)
	r.Timeout = 20
	resp := l.call(r)
	require.NotNil(t, resp.Error)
	assert.Equal(t, uint(11), resp.Error.Code)
	assert.Contains(t, resp.Error.Details, "not done within 20ms")
	require.ErrorIs(t, l.stop(), errTest)
	assert.Empty(t, l.host.keys(), "what the host made after all is taken back")
}

func TestDel(t *testing.T) {
	l := newLab(t, nil)
	require.Nil(t, l.call(request(cniapi.Add, 1)).Error)
	r := request(cniapi.Del, 1)
	r.Attach.Netns = ""
	for range 3 {
		require.Nil(t, l.call(r).Error)
	}
	assert.Empty(t, l.host.keys())
	l.host.set("detach", vnic.ErrHostUnavailable)
	assert.Equal(t, uint(11), l.call(r).Error.Code)
}

func TestGC(t *testing.T) {
	setup := func(t *testing.T) *lab {
		t.Helper()
		l := newLab(t, nil)
		for i := range 4 {
			r := request(cniapi.Add, i)
			if i == 3 {
				r.Attach.Labels = map[string]string{cniapi.LabelNetwork: "others"}
			}
			require.Nil(t, l.call(r).Error)
		}
		return l
	}
	key := func(pod string) cniapi.Attachment { return cniapi.Attachment{ContainerID: pod, Interface: "eth0"} }
	for _, tt := range []struct {
		name        string
		valid, left []cniapi.Attachment
	}{
		{"empty list", nil, []cniapi.Attachment{key("c3")}},
		{"partial list", []cniapi.Attachment{key("c1"), key("c9")}, []cniapi.Attachment{key("c1"), key("c3")}},
		{"another interface", []cniapi.Attachment{{ContainerID: "c1", Interface: "net1"}}, []cniapi.Attachment{key("c3")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := setup(t)
			require.Nil(t, l.call(cniapi.Request{Verb: cniapi.GC, Valid: tt.valid}).Error)
			assert.Equal(t, tt.left, l.host.keys())
		})
	}
	t.Run("goes on after an error", func(t *testing.T) {
		l := setup(t)
		l.host.set("detach c0", fmt.Errorf("first: %w", vnic.ErrAgentUnavailable))
		l.host.set("detach c2", fmt.Errorf("second: %w", vnic.ErrAgentUnavailable))
		resp := l.call(cniapi.Request{Verb: cniapi.GC})
		require.NotNil(t, resp.Error)
		assert.Equal(t, uint(11), resp.Error.Code)
		assert.Contains(t, resp.Error.Details, "first")
		assert.Contains(t, resp.Error.Details, "second")
		assert.Equal(t, []cniapi.Attachment{key("c0"), key("c2"), key("c3")}, l.host.keys())
	})
	t.Run("names some of many", func(t *testing.T) {
		l := setup(t)
		for i := range 30 {
			require.Nil(t, l.call(request(cniapi.Add, 10+i)).Error)
		}
		l.host.set("detach", vnic.ErrAgentUnavailable)
		resp := l.call(cniapi.Request{Verb: cniapi.GC})
		require.NotNil(t, resp.Error)
		assert.Equal(t, 33, l.host.count("detach"), "each is tried")
		assert.Equal(t, 16, strings.Count(resp.Error.Details, "detach eth0 of container c"))
		assert.Contains(t, resp.Error.Details, "\nand 17 others")
	})
	t.Run("until its time is up", func(t *testing.T) {
		l := setup(t)
		defer l.host.hold("detach")()
		resp := l.call(cniapi.Request{Verb: cniapi.GC, Timeout: 20})
		require.NotNil(t, resp.Error)
		assert.Equal(t, uint(11), resp.Error.Code)
		assert.Equal(t, 3, strings.Count(resp.Error.Details, "not done within 20ms"))
		assert.Equal(t, 1, l.host.count("detach"), "the others are not begun")
	})
	t.Run("host away", func(t *testing.T) {
		l := setup(t)
		l.host.set("list", vnic.ErrHostUnavailable)
		assert.Equal(t, uint(11), l.call(cniapi.Request{Verb: cniapi.GC}).Error.Code)
	})
}

func TestCheck(t *testing.T) {
	made := vnic.Attachment{
		ID: vnic.NewID(), MAC: vnic.MAC{2, 0, 0, 0, 0, 1}, MTU: 1400,
		Request:  vnic.Request{Queues: 2, Routes: []vnic.Route{{Destination: netip.MustParsePrefix("10.9.0.0/16")}}},
		Leases:   []netip.Prefix{netip.MustParsePrefix("10.1.0.7/24"), netip.MustParsePrefix("fd00::7/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")},
	}
	whole := cniapi.Expect{MAC: made.MAC, Addresses: made.Leases, Routes: made.Routes()}
	require.Len(t, whole.Routes, 3)
	for _, tt := range []struct {
		name   string
		change func(e *cniapi.Expect)
		want   func(m *vnic.Move)
		text   string // of the error
	}{
		{"as made", func(*cniapi.Expect) {}, func(*vnic.Move) {}, ""},
		{
			"more by later plugins", func(e *cniapi.Expect) {
				e.Addresses = append([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, e.Addresses...)
				e.Routes = append([]vnic.Route{{Destination: netip.MustParsePrefix("192.0.2.0/24")}}, e.Routes...)
			}, func(*vnic.Move) {}, "",
		},
		{
			"less by later plugins", func(e *cniapi.Expect) { e.Addresses, e.Routes = e.Addresses[:1], e.Routes[2:] },
			func(m *vnic.Move) { m.Addresses, m.Routes = m.Addresses[:1], m.Routes[2:] }, "",
		},
		{"route without its gateway", func(e *cniapi.Expect) {
			e.Routes = []vnic.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0")}}
		}, func(m *vnic.Move) { m.Routes = m.Routes[:1] }, ""},
		{"other mac", func(e *cniapi.Expect) { e.MAC[5]++ }, nil, "mac 02:00:00:00:00:02"},
		{"other addresses", func(e *cniapi.Expect) { e.Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.0.8/24")} }, nil, "10.1.0.8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.host.answered = made
			r := request(cniapi.Check, 1)
			r.Expect = cniapi.Expect{MAC: whole.MAC, Addresses: whole.Addresses, Routes: whole.Routes}
			tt.change(&r.Expect)
			resp := l.call(r)
			if tt.want == nil {
				require.NotNil(t, resp.Error)
				assert.Equal(t, cniapi.CodeDiffers, resp.Error.Code)
				assert.Contains(t, resp.Error.Details, tt.text)
				assert.Empty(t, l.agent.checked)
				return
			}
			require.Nil(t, resp.Error)
			want := vnic.Move{
				ID: made.ID, MAC: made.MAC, Netns: ownNetns, Interface: "eth0", Queues: 2,
				Addresses: made.Leases, Routes: whole.Routes,
			}
			tt.want(&want)
			assert.Equal(t, []vnic.Move{want}, l.agent.checked)
		})
	}
	t.Run("not on the host", func(t *testing.T) {
		l := newLab(t, nil)
		l.host.set("check", vnic.ErrNotFound)
		assert.Equal(t, cniapi.CodeDiffers, l.call(request(cniapi.Check, 1)).Error.Code)
	})
	t.Run("not in the pod", func(t *testing.T) {
		l := newLab(t, nil)
		l.host.answered = made
		l.agent.checkFail = fmt.Errorf("no address 10.1.0.7/24: %w", vnic.ErrDiffers)
		r := request(cniapi.Check, 1)
		r.Expect = whole
		resp := l.call(r)
		assert.Equal(t, cniapi.CodeDiffers, resp.Error.Code)
		assert.Contains(t, resp.Error.Details, "10.1.0.7/24")
	})
}

func TestStatus(t *testing.T) {
	l := newLab(t, func(c *cnid.Config) { c.Network = "blue" })
	require.Nil(t, l.call(cniapi.Request{Verb: cniapi.Status}).Error)
	assert.Equal(t, "blue", l.host.network)
}
