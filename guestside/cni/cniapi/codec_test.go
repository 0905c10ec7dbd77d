package cniapi_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

func add() cniapi.Request {
	return cniapi.Request{
		Version: cniapi.Version, Verb: cniapi.Add, Timeout: 1000, Conf: "pods",
		Attach: vnic.Request{
			Key: vnic.Key{Pod: "4c1f", Interface: "eth0"}, Network: "blue", Netns: "/run/netns/x",
			Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7")}, MAC: vnic.MAC{2, 0, 0, 0, 0, 1},
			Routes: []vnic.Route{{Destination: netip.MustParsePrefix("10.9.0.0/16")}},
			Ports:  []vnic.PortMapping{{HostPort: 8080, Port: 80, Protocol: "tcp"}},
			Labels: map[string]string{cniapi.LabelNetwork: "pods"},
		},
	}
}

func TestRequestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, cniapi.Write(&b, add()))
	assert.Equal(t, 1, bytes.Count(b.Bytes(), []byte("\n")), "one line")
	got, err := cniapi.ReadRequest(bufio.NewReader(&b))
	require.NoError(t, err)
	assert.Equal(t, add(), got)
}

func TestReadRequest(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		code       uint // 0: not an Error
		err        string
	}{
		{"empty", "", 0, "EOF"},
		{"cut short", `{"version":1`, 0, "unexpected EOF"},
		{"no JSON", "hello\n", 6, "malformed message"},
		{"wrong type", `{"version":"1"}` + "\n", 6, "malformed message"},
		{"too long", strings.Repeat(" ", cniapi.MaxMessage+2) + "\n", 0, "message is longer than 1048576 bytes"},
		{"version", `{"version":2,"verb":"STATUS","conf":"a"}` + "\n", cniapi.CodeVersion, "the plugin speaks version 2, the agent version 1"},
		{"timeout", `{"version":1,"verb":"STATUS","conf":"a","timeoutMilliseconds":-1}` + "\n", 7, "timeout of -1 ms"},
		{"long timeout", `{"version":1,"verb":"STATUS","conf":"a","timeoutMilliseconds":120001}` + "\n", 7, "timeout of 120001 ms is not in 0-120000"},
		{"conf", `{"version":1,"verb":"STATUS"}` + "\n", 7, "network name"},
		{"verb", `{"version":1,"verb":"FLY","conf":"a"}` + "\n", 4, "CNI_COMMAND"},
		{"container", `{"version":1,"verb":"DEL","conf":"a","attach":{"pod":"../x","interface":"eth0"}}` + "\n", 4, "CNI_CONTAINERID"},
		{"interface", `{"version":1,"verb":"DEL","conf":"a","attach":{"pod":"x","interface":"e%d"}}` + "\n", 4, "CNI_IFNAME"},
		{"netns", `{"version":1,"verb":"ADD","conf":"a","attach":{"pod":"x","interface":"eth0"}}` + "\n", 4, "CNI_NETNS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := cniapi.ReadRequest(bufio.NewReader(strings.NewReader(tt.line)))
			require.ErrorContains(t, err, tt.err)
			if e, ok := errors.AsType[*cniapi.Error](err); ok {
				assert.Equal(t, tt.code, e.Code)
			} else {
				assert.Zero(t, tt.code)
			}
		})
	}
}

func TestReadResponse(t *testing.T) {
	_, err := cniapi.ReadResponse(bufio.NewReader(strings.NewReader(`{"version":3}` + "\n")))
	var e *cniapi.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, cniapi.CodeVersion, e.Code)

	got, err := cniapi.ReadResponse(bufio.NewReader(strings.NewReader(`{"version":1,"error":{"code":11,"msg":"m","details":"d"}}` + "\n")))
	require.NoError(t, err)
	assert.EqualError(t, got.Error, "m; d")
}

func TestWriteTooLong(t *testing.T) {
	r := add()
	r.Conf = strings.Repeat("x", cniapi.MaxMessage)
	require.ErrorIs(t, cniapi.Write(io.Discard, r), cniapi.ErrTooLong)
}

func FuzzReadRequest(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, cniapi.Write(&b, add()))
	f.Add(b.Bytes())
	f.Add([]byte(`{"version":1,"verb":"GC","conf":"a","valid":[{"containerID":"x","interface":"eth0"}]}` + "\n"))
	f.Add([]byte(`{"version":1,"verb":"CHECK","conf":"a","expect":{"mac":"02:00:00:00:00:01","routes":[{"destination":"::/0"}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := cniapi.ReadRequest(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		var b bytes.Buffer
		require.NoError(t, cniapi.Write(&b, req), "what was read can be written")
		again, err := cniapi.ReadRequest(bufio.NewReader(&b))
		require.NoError(t, err)
		assert.Equal(t, req.Key(), again.Key())
		assert.Equal(t, req.Verb, again.Verb)
	})
}
