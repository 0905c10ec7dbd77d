package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// ownNetns is a network namespace that any user can open.
const ownNetns = "/proc/self/ns/net"

// lab is a plugin whose agent and IPAM plugin are functions of the test.
type lab struct {
	*Plugin
	out, notes bytes.Buffer
	requests   []cniapi.Request
	answer     func(cniapi.Request) (cniapi.Response, error)
	delegated  []string // the verbs
	ipam       func(verb string) (string, error)
}

func newLab() *lab {
	l := &lab{}
	l.Plugin = New(&l.out, &l.notes)
	l.answer = func(r cniapi.Request) (cniapi.Response, error) {
		a := attachment(r.Attach)
		return cniapi.Response{Version: cniapi.Version, Attachment: &a}, nil
	}
	l.call = func(_ config, r cniapi.Request) (cniapi.Response, error) {
		l.requests = append(l.requests, r)
		return l.answer(r)
	}
	l.forPod = netnsThere // ownNetns is none of a pod
	l.ipam = func(string) (string, error) { return "", nil }
	l.delegate = func(d delegation) ([]byte, error) {
		l.delegated = append(l.delegated, d.verb)
		s, err := l.ipam(d.verb)
		return []byte(s), err
	}
	return l
}

// attachment is what a host makes of a request.
func attachment(r vnic.Request) vnic.Attachment {
	return vnic.Attachment{
		ID: "brf0011223344", Request: r, MAC: vnic.MAC{2, 0, 0x5e, 0, 0x53, 1}, MTU: 1500, GuestPCI: "0000:02:01.0",
		Leases:   []netip.Prefix{netip.MustParsePrefix("10.1.0.7/24"), netip.MustParsePrefix("fd00::7/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00::1")},
	}
}

// args returns the arguments for a configuration that has more of these keys.
func args(version, more string) *skel.CmdArgs {
	conf := `{"cniVersion":"` + version + `","name":"pods","type":"brfuse"`
	if more != "" {
		conf += "," + more
	}
	return &skel.CmdArgs{ContainerID: "4c1f", Netns: ownNetns, IfName: "eth0", Path: "/opt/cni/bin", StdinData: []byte(conf + "}")}
}

// assertError checks a CNI error by its code and parts of its text.
func assertError(t *testing.T, err error, code uint, texts ...string) {
	t.Helper()
	var e *types.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, code, e.Code, "%v", e)
	for _, text := range texts {
		assert.Contains(t, e.Error(), text)
	}
}

func compact(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Compact(&b, []byte(strings.TrimSpace(s))))
	return b.String()
}

var errTest = errors.New("test")
