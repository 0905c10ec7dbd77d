package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

func TestAddResult(t *testing.T) {
	prev := `"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"lo","sandbox":"/x"}],"ips":[{"address":"127.0.0.1/8","interface":0}]}`
	for _, tt := range []struct{ name, version, more string }{
		{"0.3.1", "0.3.1", ""},
		{"0.4.0", "0.4.0", ""},
		{"1.0.0", "1.0.0", ""},
		{"1.1.0", "1.1.0", ""},
		{"prevResult", "1.1.0", prev},
		{"dns", "1.1.0", `"dns":{"nameservers":["10.1.0.1"],"domain":"a.example"}`},
		{"runtime-dns", "1.1.0", `"dns":{"nameservers":["10.1.0.1"],"domain":"a.example"},"runtimeConfig":{"dns":{"servers":["10.1.0.2"],"searches":["b.example"]}}`},
		{"routes", "1.1.0", `"noDefaultRoute":true,"routes":[{"dst":"10.9.0.0/16","gw":"10.1.0.9"},{"dst":"fd01::/64"}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			require.NoError(t, l.Add(args(tt.version, tt.more)))
			want, err := os.ReadFile("testdata/" + tt.name + ".json")
			require.NoError(t, err)
			assert.Equal(t, compact(t, string(want)), compact(t, l.out.String()))
		})
	}
}

func TestAddRequest(t *testing.T) {
	const k8s = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=4c1f;K8S_POD_UID=1-2"
	base := func(change func(r *cniapi.Request)) cniapi.Request {
		r := cniapi.Request{
			Version: 1, Verb: cniapi.Add, Timeout: 30_000, Conf: "pods", AutoDefaultRoute: true,
			Attach: vnic.Request{
				Key: vnic.Key{Pod: "4c1f", Interface: "eth0"}, Netns: resolved(ownNetns),
				Labels: map[string]string{"cni.network": "pods"},
			},
		}
		if change != nil {
			change(&r)
		}
		return r
	}
	for _, tt := range []struct {
		name, conf, env string
		want            func(r *cniapi.Request)
	}{
		{"least", "", "", nil},
		{
			"keys", `"network":"blue","mtu":1400,"queues":2,"timeout":1.5,"noDefaultRoute":false,"frobnicate":[1]`, "",
			func(r *cniapi.Request) {
				r.Attach.Network, r.Attach.MTU, r.Attach.Queues, r.Timeout, r.AutoDefaultRoute = "blue", 1400, 2, 1500, false
			},
		},
		{"no default route", `"noDefaultRoute":true`, "", func(r *cniapi.Request) { r.AutoDefaultRoute, r.Attach.NoDefaultRoute = false, true }},
		{"kubernetes", "", k8s, func(r *cniapi.Request) {
			r.Attach.Labels = map[string]string{"cni.network": "pods", "k8s.namespace": "shop", "k8s.pod": "web-1", "k8s.uid": "1-2"}
		}},
		{"unprintable label", "", "K8S_POD_NAME=a\tb", nil},
		{"podman", "", "IgnoreUnknown=1;K8S_POD_NAME=db;MAC=02:00:00:00:00:09;IP=10.1.0.9", func(r *cniapi.Request) {
			r.Attach.Labels["k8s.pod"] = "db"
			r.Attach.MAC, r.Attach.Addresses = vnic.MAC{2, 0, 0, 0, 0, 9}, []netip.Addr{netip.MustParseAddr("10.1.0.9")}
		}},
		{"args before CNI_ARGS", `"args":{"cni":{"ips":["10.1.0.8/24","fd00::8"],"mac":"02:00:00:00:00:08"}}`, "MAC=02:00:00:00:00:09;IP=10.1.0.9", func(r *cniapi.Request) {
			r.Attach.MAC, r.Attach.Addresses = vnic.MAC{2, 0, 0, 0, 0, 8}, []netip.Addr{netip.MustParseAddr("10.1.0.8"), netip.MustParseAddr("fd00::8")}
		}},
		{"runtimeConfig before args", `"args":{"cni":{"ips":["10.1.0.8"]}},"runtimeConfig":{"ips":["10.1.0.7"],"mac":"02:00:00:00:00:07"}`, "MAC=02:00:00:00:00:09", func(r *cniapi.Request) {
			r.Attach.MAC, r.Attach.Addresses = vnic.MAC{2, 0, 0, 0, 0, 7}, []netip.Addr{netip.MustParseAddr("10.1.0.7")}
		}},
		{"ports and bandwidth", `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"},"aliases":["x"],
			"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"UDP"},{"hostPort":8081,"containerPort":81,"hostIP":"0.0.0.0"},{"hostPort":8082,"containerPort":82,"protocol":"sctp","hostIP":"192.0.2.1"}],
			"bandwidth":{"ingressRate":1000000,"ingressBurst":2147483647,"egressRate":2000000}}`, "", func(r *cniapi.Request) {
			r.Attach.Ports = []vnic.PortMapping{
				{HostPort: 8080, Port: 80, Protocol: "udp"},
				{HostPort: 8081, Port: 81, Protocol: "tcp"},
				{HostPort: 8082, Port: 82, Protocol: "sctp", HostIP: netip.MustParseAddr("192.0.2.1")},
			}
			r.Attach.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: 1_000_000, Burst: 2_147_483_647}, Egress: vnic.Rate{Bits: 2_000_000}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			a := args("1.0.0", tt.conf)
			a.Args = tt.env
			require.NoError(t, l.Add(a))
			assert.Equal(t, []cniapi.Request{base(tt.want)}, l.requests)
		})
	}
}

func TestAddRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, conf, env string
		code            uint
		texts           []string
	}{
		{"type of a key", `"mtu":"big"`, "", 7, []string{`"mtu"`, "string"}},
		{"mtu", `"mtu":100`, "", 7, []string{`"mtu": 100`, "1280"}},
		{"queues", `"queues":-1`, "", 7, []string{`"queues": -1`}},
		{"socket", `"socket":"x.sock"`, "", 7, []string{`"socket": x.sock`}},
		{"timeout", `"timeout":-2`, "", 7, []string{`"timeout": -2`}},
		{"timeout that the agent has not", `"timeout":121`, "", 7, []string{"give seconds in 0-120"}},
		{"route", `"routes":[{"dst":"10.0.0.0/8","gw":"fd00::1"}]`, "", 7, []string{`"routes[0]"`, "one family"}},
		{"route with a table", `"routes":[{"dst":"10.0.0.0/8","table":7}]`, "", 7, []string{`"routes[0]"`, "table"}},
		{"mac", `"runtimeConfig":{"mac":"01:00:00:00:00:00"}`, "", 7, []string{`"runtimeConfig.mac": 01:00:00:00:00:00`}},
		{"ip", `"args":{"cni":{"ips":["10.1.0"]}}`, "", 7, []string{`"args.cni.ips": 10.1.0`}},
		{"ips of one family", "", "IP=10.1.0.1,10.1.0.2", 7, []string{`"CNI_ARGS IP": 10.1.0.1, 10.1.0.2`, "one address a family"}},
		{"CNI_ARGS", "", "A", 4, []string{"CNI_ARGS", `"A"`}},
		{"unknown CNI_ARGS", "", "COLOUR=red", 4, []string{"CNI_ARGS", "COLOUR", "IgnoreUnknown=1"}},
		{"ipRanges", `"runtimeConfig":{"ipRanges":[[{"subnet":"10.2.0.0/24"}]]}`, "", 2, []string{`"runtimeConfig.ipRanges"`, "10.2.0.0/24"}},
		{"guid", `"runtimeConfig":{"infinibandGUID":"c2"}`, "", 2, []string{"infinibandGUID", "c2"}},
		{"device", `"runtimeConfig":{"deviceID":"0000:04:00.5"}`, "", 2, []string{"deviceID", "0000:04:00.5"}},
		{"host port 0", `"runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":80}]}`, "", 7, []string{"portMappings[0]", "hostPort"}},
		{"protocol", `"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":80,"protocol":"icmp"}]}`, "", 7, []string{"portMappings[0]", "icmp"}},
		{"host address", `"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":80,"hostIP":"127.0.0.1"}]}`, "", 7, []string{"127.0.0.1"}},
		{"rate", `"runtimeConfig":{"bandwidth":{"ingressRate":1}}`, "", 7, []string{"runtimeConfig.bandwidth", "ingress rate of 1"}},
		{"prevResult", `"prevResult":{"cniVersion":"9.0.0"}`, "", 6, []string{"prevResult"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			a := args("1.0.0", tt.conf)
			a.Args = tt.env
			assertError(t, l.Add(a), tt.code, tt.texts...)
			assert.Empty(t, l.requests, "the agent is not asked")
			assert.Empty(t, l.out.String())
		})
	}
}

func TestAddNetns(t *testing.T) {
	for _, path := range []string{"/nowhere", "/proc/self/exe", "relative"} {
		l := newLab()
		a := args("1.0.0", `"ipam":{"type":"x"}`)
		a.Netns = path
		assertError(t, l.Add(a), 4, "CNI_NETNS", path)
		assert.Empty(t, l.requests)
		assert.Empty(t, l.delegated, "no address is leased for it")
	}
}

func TestResolved(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	require.NoError(t, os.Symlink(filepath.Join(dir, "run"), filepath.Join(dir, "var")))
	require.NoError(t, os.Symlink("/elsewhere", filepath.Join(dir, "run", "link")))
	for in, want := range map[string]string{
		dir + "/var/x": dir + "/run/x", dir + "/run/x": dir + "/run/x", dir + "/var/link": dir + "/run/link",
		"/nowhere/x": "/nowhere/x", "x": "x", "": "",
	} {
		assert.Equal(t, want, resolved(in), "%s", in)
	}
}

func TestAddOwnNetns(t *testing.T) {
	l := newLab()
	l.forPod = forPod
	assertError(t, l.Add(args("1.0.0", "")), 4, "CNI_NETNS", "the vm's own")
	assert.Empty(t, l.requests)
}

func TestAddFails(t *testing.T) {
	l := newLab()
	l.answer = func(cniapi.Request) (cniapi.Response, error) {
		return cniapi.Response{Version: 1, Error: &cniapi.Error{Code: 100, Msg: "m", Details: "d"}}, nil
	}
	err := l.Add(args("1.0.0", ""))
	assertError(t, err, 100, "m; d")
	l.printError(asError(err))
	assert.JSONEq(t, `{"cniVersion":"1.0.0","code":100,"msg":"m","details":"d"}`, l.out.String())

	l.answer = func(cniapi.Request) (cniapi.Response, error) { return cniapi.Response{Version: 1}, nil }
	assertError(t, l.Add(args("1.0.0", "")), types.ErrInternal, "without an attachment")

	l.answer = func(cniapi.Request) (cniapi.Response, error) {
		return cniapi.Response{}, &awayError{"/run/x.sock", errTest}
	}
	assertError(t, l.Add(args("1.0.0", "")), types.ErrTryAgainLater, "/run/x.sock", "systemctl start brfuse-agent", `"socket"`)
}
