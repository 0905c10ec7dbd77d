package cni

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

func away(cniapi.Request) (cniapi.Response, error) {
	return cniapi.Response{}, &awayError{"/run/x.sock", errTest}
}

func TestDel(t *testing.T) {
	for _, tt := range []struct {
		name, conf, netns string
		answer            func(cniapi.Request) (cniapi.Response, error)
		code              uint // 0: success
	}{
		{"done", "", ownNetns, nil, 0},
		{"without netns", "", "", nil, 0},
		{"what only ADD checks is wrong", `"mtu":1,"runtimeConfig":{"mac":"x"},"routes":[{"dst":"10.0.0.1/8"}],"prevResult":{"cniVersion":"9"}`, ownNetns, nil, 0},
		{"agent away, pod alive", "", ownNetns, away, 11},
		{"agent away, no netns", "", "", away, 0},
		{"agent away, netns gone", "", "/nowhere", away, 0},
		{"host away, netns gone", "", "/nowhere", func(cniapi.Request) (cniapi.Response, error) {
			return cniapi.Response{Error: &cniapi.Error{Code: 11, Msg: "away"}}, nil
		}, 0},
		{"refused, netns gone", "", "/nowhere", func(cniapi.Request) (cniapi.Response, error) {
			return cniapi.Response{Error: &cniapi.Error{Code: 102, Msg: "forbidden"}}, nil
		}, 102},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			if tt.answer != nil {
				l.answer = tt.answer
			}
			a := args("1.0.0", tt.conf)
			a.Netns = tt.netns
			err := l.Del(a)
			assert.Empty(t, l.out.String(), "DEL writes nothing")
			require.Len(t, l.requests, 1)
			assert.Equal(t, cniapi.Del, l.requests[0].Verb)
			assert.Equal(t, cniapi.Attachment{ContainerID: "4c1f", Interface: "eth0"}, l.requests[0].Key())
			if tt.code != 0 {
				assertError(t, err, tt.code)
				return
			}
			require.NoError(t, err)
		})
	}
}

const prevOfADD = `"prevResult":{"cniVersion":"1.1.0",
	"interfaces":[{"name":"lo","sandbox":"` + ownNetns + `"},{"name":"eth0","mac":"02:00:5e:00:53:01","sandbox":"` + ownNetns + `"}],
	"ips":[{"address":"127.0.0.1/8","interface":0},{"address":"10.1.0.7/24","interface":1},{"address":"fd00::7/64"}],
	"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"},{"dst":"fd01::/64"}]}`

func TestCheck(t *testing.T) {
	l := newLab()
	require.NoError(t, l.Check(args("1.1.0", prevOfADD)))
	require.Len(t, l.requests, 1)
	assert.Equal(t, cniapi.Check, l.requests[0].Verb)
	assert.Equal(t, cniapi.Expect{
		MAC:       vnic.MAC{2, 0, 0x5e, 0, 0x53, 1},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.7/24"), netip.MustParsePrefix("fd00::7/64")},
		Routes: []vnic.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Destination: netip.MustParsePrefix("fd01::/64")},
		},
	}, l.requests[0].Expect)
	assert.Empty(t, l.out.String())
}

func TestCheckFails(t *testing.T) {
	for _, tt := range []struct {
		name, conf, ifname, netns string
		code                      uint
		text                      string
	}{
		{"no prevResult", `"ipam":{"type":"x"}`, "eth0", ownNetns, 7, "prevResult"},
		{"no such interface in it", prevOfADD, "net1", ownNetns, 7, "net1"},
		{"netns is gone", prevOfADD, "eth0", ownNetns + "x", 7, "has no interface eth0 in " + ownNetns + "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			a := args("1.1.0", tt.conf)
			a.IfName, a.Netns = tt.ifname, tt.netns
			assertError(t, l.Check(a), tt.code, tt.text)
			assert.Empty(t, l.requests)
		})
	}
}

func TestGC(t *testing.T) {
	l := newLab()
	require.NoError(t, l.GC(args("1.1.0", `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"net1"}]`)))
	require.Len(t, l.requests, 1)
	assert.Equal(t, cniapi.GC, l.requests[0].Verb)
	assert.Equal(t, "pods", l.requests[0].Conf)
	assert.Equal(t, []cniapi.Attachment{{ContainerID: "a", Interface: "eth0"}, {ContainerID: "b", Interface: "net1"}}, l.requests[0].Valid)
}

// libcni leaves the key out when its caller names none, and writes null for no list.
func TestGCWithoutList(t *testing.T) {
	for _, conf := range []string{"", `"cni.dev/valid-attachments":null`, `"cni.dev/valid-attachments":[]`} {
		l := newLab()
		require.NoError(t, l.GC(args("1.1.0", conf)))
		require.Len(t, l.requests, 1)
		assert.Empty(t, l.requests[0].Valid)
	}
	l := newLab()
	assertError(t, l.GC(args("1.1.0", `"cni.dev/valid-attachments":"all"`)), 7, "valid-attachments")
	assert.Empty(t, l.requests)
}

// DEL does without what it doesn't use: a typo must not keep a pod from ending.
func TestDelForgives(t *testing.T) {
	for _, conf := range []string{`"mtu":"bad"`, `"timeout":-1`, `"socket":"run/x.sock"`, `"network":7,"routes":[{"dst":"bad"}]`} {
		l := newLab()
		require.NoError(t, l.Del(args("1.1.0", conf)), conf)
		require.Len(t, l.requests, 1)
		assert.Equal(t, cniapi.Del, l.requests[0].Verb)
		assertError(t, l.Add(args("1.1.0", conf)), 7, "invalid")
	}
}

func TestStatus(t *testing.T) {
	l := newLab()
	require.NoError(t, l.Status(args("1.1.0", `"network":"blue"`)))
	require.Len(t, l.requests, 1)
	assert.Equal(t, "blue", l.requests[0].Attach.Network)
	l.answer = away
	assertError(t, l.Status(args("1.1.0", "")), types.ErrPluginNotAvailable, "systemctl start brfuse-agent")
}
