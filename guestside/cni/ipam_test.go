package cni

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

func TestDelegatedAdd(t *testing.T) {
	route := func(dst, gw string) vnic.Route {
		r := vnic.Route{Destination: netip.MustParsePrefix(dst)}
		if gw != "" {
			r.Gateway = netip.MustParseAddr(gw)
		}
		return r
	}
	for _, tt := range []struct {
		name, conf, result string
		addrs              []netip.Addr
		routes             []vnic.Route
	}{
		{
			"gateway", "", `{"ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.254"}]}`,
			[]netip.Addr{netip.MustParseAddr("10.1.0.5")},
			[]vnic.Route{route("0.0.0.0/0", "10.1.0.254")},
		},
		{
			"no gateway", "", `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/24"}]}`,
			[]netip.Addr{netip.MustParseAddr("10.1.0.5")},
			nil,
		},
		{
			"routes, two families", `,"routes":[{"dst":"10.9.0.0/16","gw":"10.1.0.9"}]`,
			`{"ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.254"},{"address":"fd00::5/64","gateway":"fd00::fe"}],
			 "routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.253"},{"dst":"10.8.0.0/16"},{"dst":"10.9.0.0/16"},{"dst":"fd08::/64"}]}`,
			[]netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")},
			[]vnic.Route{
				route("10.9.0.0/16", "10.1.0.9"), route("0.0.0.0/0", "10.1.0.253"), route("10.8.0.0/16", "10.1.0.254"),
				route("fd08::/64", "fd00::fe"), route("::/0", "fd00::fe"),
			},
		},
		{
			"no default route", `,"noDefaultRoute":true`, `{"ips":[{"address":"10.1.0.5/24","gateway":"10.1.0.254"}],"routes":[{"dst":"10.8.0.0/16"}]}`,
			[]netip.Addr{netip.MustParseAddr("10.1.0.5")},
			[]vnic.Route{route("10.8.0.0/16", "10.1.0.254")},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			l.ipam = func(string) (string, error) { return tt.result, nil }
			a := args("1.0.0", `"ipam":{"type":"host-local"},"runtimeConfig":{"ipRanges":[]}`+tt.conf)
			a.Args = "IP=10.1.0.77" // the IPAM plugin's to see to
			require.NoError(t, l.Add(a))
			assert.Equal(t, []string{"ADD"}, l.delegated)
			require.Len(t, l.requests, 1)
			got := l.requests[0].Attach
			assert.Equal(t, tt.addrs, got.Addresses)
			assert.Equal(t, tt.routes, got.Routes)
			assert.True(t, got.NoDefaultRoute, "the network's own gateways are not used")
		})
	}
}

func TestDelegatedDNS(t *testing.T) {
	l := newLab()
	l.ipam = func(string) (string, error) {
		return `{"ips":[{"address":"10.1.0.5/24"}],"dns":{"nameservers":["10.1.0.53"]}}`, nil
	}
	require.NoError(t, l.Add(args("1.0.0", `"ipam":{"type":"x"},"dns":{"nameservers":["10.1.0.1"]}`)))
	var r struct{ DNS types.DNS }
	require.NoError(t, json.Unmarshal(l.out.Bytes(), &r))
	assert.Equal(t, types.DNS{Nameservers: []string{"10.1.0.53"}}, r.DNS, "the plugin's go before the configured ones")
}

func TestDelegatedAddIsUndone(t *testing.T) {
	good := func(string) (string, error) { return `{"ips":[{"address":"10.1.0.5/24"}]}`, nil }
	for _, tt := range []struct {
		name string
		set  func(l *lab)
		code uint
	}{
		{"agent away", func(l *lab) { l.ipam, l.answer = good, away }, 11},
		{"ipam fails", func(l *lab) {
			l.ipam = func(verb string) (string, error) {
				if verb == "ADD" {
					return "", types.NewError(11, "range is full", "")
				}
				return "", nil
			}
		}, 11},
		{"no address", func(l *lab) { l.ipam = func(string) (string, error) { return `{}`, nil } }, 7},
		{"malformed", func(l *lab) { l.ipam = func(string) (string, error) { return `{"ips":7}`, nil } }, 6},
		{"malformed address", func(l *lab) { l.ipam = func(string) (string, error) { return `{"ips":[{"address":"10"}]}`, nil } }, 6},
		{"route with a metric", func(l *lab) {
			l.ipam = func(string) (string, error) {
				return `{"ips":[{"address":"10.1.0.5/24"}],"routes":[{"dst":"10.0.0.0/8","priority":5}]}`, nil
			}
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			tt.set(l)
			assertError(t, l.Add(args("1.0.0", `"ipam":{"type":"x"}`)), tt.code)
			assert.Equal(t, []string{"ADD", "DEL"}, l.delegated)
		})
	}
}

// A pod that keeps its vNIC keeps its addresses.
func TestDelegatedDel(t *testing.T) {
	refused := func(cniapi.Request) (cniapi.Response, error) {
		return cniapi.Response{Error: &cniapi.Error{Code: 102, Msg: "forbidden"}}, nil
	}
	for _, tt := range []struct {
		name, netns string
		answer      func(cniapi.Request) (cniapi.Response, error)
		code        uint // 0: success
		delegated   []string
	}{
		{"done", ownNetns, nil, 0, []string{"DEL"}},
		{"agent away, pod alive", ownNetns, away, 11, nil},
		{"agent away, netns gone", "/nowhere", away, 0, []string{"DEL"}},
		{"refused", "/nowhere", refused, 102, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			if tt.answer != nil {
				l.answer = tt.answer
			}
			l.ipam = func(string) (string, error) {
				assert.Len(t, l.requests, 1, "the vnic goes before its addresses")
				return "", nil
			}
			a := args("1.0.0", `"ipam":{"type":"x"}`)
			a.Netns = tt.netns
			err := l.Del(a)
			assert.Equal(t, tt.delegated, l.delegated)
			if tt.code != 0 {
				assertError(t, err, tt.code)
				return
			}
			require.NoError(t, err)
		})
	}
}

// The IPAM plugin hears of all verbs, whatever else fails.
func TestDelegatedOthers(t *testing.T) {
	l := newLab()
	l.answer = away
	l.ipam = func(string) (string, error) { return "", types.NewError(77, "ipam says no", "") }
	const conf = `"ipam":{"type":"x"},`

	a := args("1.1.0", conf+`"cni.dev/valid-attachments":[]`)
	a.Netns = ""
	assertError(t, l.Del(a), 77, "ipam says no")
	assertError(t, l.GC(a), 11, "ipam says no", "brfuse-agent")
	assertError(t, l.Status(a), 50, "ipam says no", "brfuse-agent")
	assertError(t, l.Check(args("1.1.0", conf+prevOfADD)), 11, "ipam says no", "brfuse-agent")
	assert.Equal(t, []string{"DEL", "GC", "STATUS", "CHECK"}, l.delegated)
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, script string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	write("echo", `echo "$CNI_COMMAND $(cat)"; echo note >&2`)
	write("refuse", `echo '{"code":11,"msg":"full","details":"of 3"}'; exit 1`)
	write("crash", `echo oops; exit 3`)
	write("hang", `exec sleep 100`)
	var notes bytes.Buffer
	d := delegation{path: "/nowhere:" + dir, verb: "ADD", stdin: []byte("conf"), stderr: &notes, timeout: 20 * time.Second}

	d.plugin = "echo"
	out, err := run(d)
	require.NoError(t, err)
	assert.Equal(t, "ADD conf\n", string(out))
	assert.Equal(t, "note\n", notes.String())

	for _, tt := range []struct {
		plugin  string
		timeout time.Duration
		code    uint
		text    string
	}{
		{"refuse", d.timeout, 11, "ipam plugin refuse: full; of 3"},
		{"crash", d.timeout, 999, "ipam plugin crash: ADD: exit status 3; oops"},
		{"hang", 50 * time.Millisecond, 11, "took longer than 50ms"},
		{"absent", d.timeout, 7, "no plugin absent in CNI_PATH"},
		{"../echo", d.timeout, 7, `"ipam.type": ../echo`},
	} {
		t.Run(tt.plugin, func(t *testing.T) {
			d := d
			d.plugin, d.timeout = tt.plugin, tt.timeout
			_, err := run(d)
			assertError(t, err, tt.code, tt.text)
		})
	}
}
