package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// nowhere is a host that has a network and refuses everything.
type nowhere struct{}

func (nowhere) Attach(context.Context, vnic.Request) (vnic.Attachment, error) {
	return vnic.Attachment{}, vnic.ErrNoSlot
}
func (nowhere) Detach(context.Context, string, string) error { return nil }
func (nowhere) Attachments(context.Context, string) ([]vnic.Attachment, error) {
	return nil, nil
}

func (nowhere) Publish(context.Context, string, string, []vnic.PortMapping) error {
	return vnic.ErrPortTaken
}

func (nowhere) Networks(context.Context) ([]vnic.Network, error) {
	n, err := vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")}}.Complete()
	return []vnic.Network{n}, err
}

func (nowhere) Reserve(_ context.Context, _ string, want netip.Addr, _ bool) (netip.Prefix, error) {
	return want.Prefix(24)
}
func (nowhere) Unreserve(context.Context, string, []netip.Addr) error { return nil }
func (nowhere) Reservations(context.Context) ([]vnic.Reservation, error) {
	return nil, nil
}
func (nowhere) Notify() <-chan struct{}        { return nil }
func (nowhere) AtHome(vnic.MAC) (string, bool) { return "", false }

// FuzzRequests sends anything to each call: it is answered, by JSON.
func FuzzRequests(f *testing.F) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	require.NoError(f, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(f, err)
		for line := range strings.Lines(string(raw)) {
			if call, ok := strings.CutPrefix(line, "> call "); ok {
				method, body, _ := strings.Cut(strings.TrimSpace(call), " ")
				f.Add(method, body)
			}
		}
	}
	f.Add("NetworkDriver.ProgramExternalConnectivity", `{"NetworkID":"n","EndpointID":"e","Options":{"com.docker.network.portmap":[{"Proto":6,"Port":80,"HostIP":"::ffff:1.2.3.4","HostPort":8000,"HostPortEnd":70000}]}}`)
	f.Add("NetworkDriver.CreateNetwork", `{"NetworkID":"n","Options":{"com.docker.network.generic":{"mtu":"1400","ingress":"18446744073709551615G"}},"IPv4Data":[{"Pool":"10.1.0.0/24","Gateway":"10.1.0.1/24","AuxAddresses":{"a":"10.1.0.5/24"}}]}`)
	d, err := New(Config{Host: nowhere{}, Agent: nowhere{}, StateDir: f.TempDir()})
	require.NoError(f, err)
	h := d.Handler()
	f.Fuzz(func(t *testing.T, method, body string) {
		if d.calls()[method] == nil {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+method, strings.NewReader(body)))
		assert.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, w.Code)
		assert.True(t, json.Valid(w.Body.Bytes()))
	})
}

// FuzzState reads any file: what is taken for a state can be used and written.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"networks":{"n":{"name":"blue","subnets":["10.1.0.0/24"],"gateways":["10.1.0.1"]}},"endpoints":{"e":{"network":"n","mac":"02:00:00:00:00:01","id":"0000000001","addresses":["10.1.0.2/24"]}},"pools":{"blue/v4":{"network":"blue","subnet":"10.1.0.0/24","gateway":"10.1.0.1","refs":1}},"leaving":{"x":{}}}`))
	f.Add([]byte(`{"version":1,"networks":{"n":null}}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseState(raw)
		if err != nil {
			return
		}
		text, err := json.Marshal(s)
		require.NoError(t, err)
		_, err = parseState(text)
		require.NoError(t, err)
		for _, e := range s.Endpoints {
			_, _ = e.answer(), e.joined("x", s.Networks[e.Network])
		}
	})
}

// FuzzOptions reads any option: what is accepted is in its limits.
func FuzzOptions(f *testing.F) {
	for _, v := range []string{"1400", "10M", "1G", "5k", "net", "blue", "0", "-1", "1e9"} {
		f.Add("mtu", v)
		f.Add("com.brfuse.ingress", v)
		f.Add(optPrefix, v)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		o, network, err := parseOptions(map[string]string{key: value})
		if err != nil {
			require.ErrorIs(t, err, vnic.ErrInvalid)
			return
		}
		require.NoError(t, o.Bandwidth.Validate())
		assert.True(t, o.MTU == 0 || o.MTU >= vnic.MinMTU && o.MTU <= vnic.MaxMTU)
		assert.True(t, network == "" || vnic.CheckNetworkName(network) == nil)
		assert.True(t, o.Prefix == "" || vnic.CheckInterface(o.Prefix+"0") == nil)
	})
}
