package guestlink

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/vnic"
)

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

// A guest is told under which id the vNIC goes that an attachment has from a pool.
func TestFromAttachmentTellsTheDevice(t *testing.T) {
	m := fromAttachment(vnic.Attachment{ID: "0123456789", Device: "abcdef0123"})
	assert.Equal(t, "0123456789", m.GetId())
	assert.Equal(t, "abcdef0123", m.GetDevice())
	assert.Empty(t, fromAttachment(vnic.Attachment{ID: "0123456789"}).GetDevice())
}
