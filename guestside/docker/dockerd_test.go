package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"
)

// dockerd sends what Docker sends, in its order, and does to the guest's links what
// it does. Its requests are in testdata/requests.
type dockerd struct {
	t     *testing.T
	http  *http.Client
	guest *guest
	out   *strings.Builder

	templates  *template.Template
	networks   map[string]*dockerNetwork
	containers map[string]*container
	endpoints  int
}

type dockerNetwork struct {
	ID, Name, Driver string // of addresses: brfuse, default, null
	Options          map[string]string
	Internal         bool
	Pools            []dockerPool
}

type dockerPool struct {
	ID, Subnet, Gateway string
	V6                  bool
	Aux                 map[string]string
}

type container struct {
	name      string
	endpoints []*dockerEndpoint
}

type dockerEndpoint struct {
	ID, Link, Name    string
	Network           *dockerNetwork
	Address, Address6 string
	MAC               string
	Ports             string
	Options           string
	gateway           bool
}

// newDockerd returns one that reaches its driver by dial.
func newDockerd(t *testing.T, g *guest, out *strings.Builder, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *dockerd {
	t.Helper()
	templates := template.New("").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		raw, err := json.Marshal(v)
		return string(raw), err
	}})
	files, err := filepath.Glob("testdata/requests/*.json")
	require.NoError(t, err)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		require.NoError(t, err)
		_, err = templates.New(strings.TrimSuffix(filepath.Base(f), ".json")).Parse(string(raw))
		require.NoError(t, err)
	}
	transport := &http.Transport{DialContext: dial}
	return &dockerd{
		t: t, http: &http.Client{Transport: transport}, guest: g, out: out, templates: templates,
		networks: map[string]*dockerNetwork{}, containers: map[string]*container{},
	}
}

// send makes a call with a body and writes it and its answer down.
func (d *dockerd) send(method, body string) (answer map[string]any, failed string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "http://docker/"+method, strings.NewReader(body))
	require.NoError(d.t, err)
	resp, err := d.http.Do(req)
	if err != nil {
		fmt.Fprintf(d.out, "%s: no driver\n", method)
		return nil, "no driver"
	}
	raw, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	require.NoError(d.t, resp.Body.Close())
	raw = bytes.TrimSpace(raw)
	status := ""
	if resp.StatusCode != http.StatusOK {
		status = fmt.Sprintf(" %d", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusNotFound {
		fmt.Fprintf(d.out, "%s:%s %s\n", method, status, raw)
		return nil, string(raw)
	}
	require.NoError(d.t, json.Unmarshal(raw, &answer), string(raw))
	if text, ok := answer["Err"]; ok {
		require.Equal(d.t, text, answer["Error"], "both clients of dockerd find the failure")
		fmt.Fprintf(d.out, "%s:%s failed: %s\n", method, status, text)
		return answer, text.(string)
	}
	fmt.Fprintf(d.out, "%s:%s %s\n", method, status, raw)
	return answer, ""
}

// call makes a call of testdata/requests.
func (d *dockerd) call(method string, data any) (map[string]any, bool) {
	d.t.Helper()
	var body bytes.Buffer
	_, name, _ := strings.Cut(method, ".")
	require.NoError(d.t, d.templates.ExecuteTemplate(&body, name, data))
	require.True(d.t, json.Valid(body.Bytes()), body.String())
	answer, failed := d.send(method, body.String())
	return answer, failed == ""
}

func (d *dockerd) start() {
	for _, m := range []string{"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces"} {
		d.send(m, "")
	}
}

// create is docker network create.
func (d *dockerd) create(n *dockerNetwork) {
	ok := true
	for i := range n.Pools {
		p := &n.Pools[i]
		if n.Driver != "brfuse" || !ok {
			continue
		}
		var a map[string]any
		if a, ok = d.call("IpamDriver.RequestPool", map[string]any{"Pool": p.Subnet, "V6": p.V6, "Options": n.Options}); !ok {
			break
		}
		p.ID, p.Subnet = a["PoolID"].(string), a["Pool"].(string)
		if a, ok = d.call("IpamDriver.RequestAddress", map[string]any{"PoolID": p.ID, "Address": p.Gateway, "Gateway": true}); !ok {
			break
		}
		p.Gateway = a["Address"].(string)
		for k, v := range p.Aux {
			if a, ok = d.call("IpamDriver.RequestAddress", map[string]any{"PoolID": p.ID, "Address": v}); ok {
				p.Aux[k] = a["Address"].(string)
			}
		}
	}
	if ok {
		_, ok = d.call("NetworkDriver.CreateNetwork", n)
	}
	if ok {
		d.networks[n.Name] = n
		return
	}
	for _, p := range n.Pools {
		d.releasePool(p)
	}
}

func (d *dockerd) releasePool(p dockerPool) {
	if p.ID == "" {
		return
	}
	for _, a := range append(slices.Sorted(maps.Values(p.Aux)), p.Gateway) {
		if a, _, ok := strings.Cut(a, "/"); ok {
			d.call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": p.ID, "Address": a})
		}
	}
	d.call("IpamDriver.ReleasePool", p)
}

// remove is docker network rm.
func (d *dockerd) remove(name string) {
	n := d.networks[name]
	if _, ok := d.call("NetworkDriver.DeleteNetwork", n); !ok {
		return
	}
	delete(d.networks, name)
	for _, p := range n.Pools {
		d.releasePool(p)
	}
}

// connect is docker network connect, and what docker run does of it.
func (d *dockerd) connect(name string, e *dockerEndpoint) bool {
	c := d.containers[name]
	if c == nil {
		c = &container{name: name}
		d.containers[name] = c
	}
	d.endpoints++
	e.ID = fmt.Sprintf("ep%d", d.endpoints)
	if !d.allocate(e) {
		return false
	}
	a, ok := d.call("NetworkDriver.CreateEndpoint", e)
	if !ok {
		d.release(e)
		return false
	}
	e.take(a["Interface"].(map[string]any))
	if !d.join(c, e) {
		d.call("NetworkDriver.DeleteEndpoint", e)
		d.release(e)
		return false
	}
	c.endpoints = append(c.endpoints, e)
	return true
}

// take takes what the driver answered; a field that was given may not come back.
func (e *dockerEndpoint) take(a map[string]any) {
	for key, field := range map[string]*string{"Address": &e.Address, "AddressIPv6": &e.Address6, "MacAddress": &e.MAC} {
		v, _ := a[key].(string)
		if v != "" && *field != "" {
			panic("driver modified " + key)
		}
		*field += v
	}
}

// allocate asks the address driver for addresses.
func (d *dockerd) allocate(e *dockerEndpoint) bool {
	for _, p := range e.Network.Pools {
		field := &e.Address
		if p.V6 {
			field = &e.Address6
		}
		switch e.Network.Driver {
		case "brfuse":
			a, ok := d.call("IpamDriver.RequestAddress", map[string]any{"PoolID": p.ID, "Address": *field})
			if !ok {
				return false
			}
			*field = a["Address"].(string)
		case "default":
			_, bits, _ := strings.Cut(p.Subnet, "/")
			if *field == "" {
				*field = strings.TrimSuffix(p.Gateway[:strings.Index(p.Gateway, "/")], "1") + fmt.Sprint(100+d.endpoints)
			}
			*field += "/" + bits
		}
	}
	return true
}

// release gives the addresses back.
func (d *dockerd) release(e *dockerEndpoint) {
	if e.Network.Driver != "brfuse" {
		return
	}
	for _, p := range e.Network.Pools {
		a := e.Address
		if p.V6 {
			a = e.Address6
		}
		if a, _, ok := strings.Cut(a, "/"); ok {
			d.call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": p.ID, "Address": a})
		}
	}
}

// join moves an endpoint's link into a container.
func (d *dockerd) join(c *container, e *dockerEndpoint) bool {
	a, ok := d.call("NetworkDriver.Join", e)
	if !ok {
		return false
	}
	names := a["InterfaceName"].(map[string]any)
	e.Link = names["SrcName"].(string)
	for i := 0; ; i++ {
		if e.Name = fmt.Sprint(names["DstPrefix"], i); !slices.Contains(d.guest.links(c.name), e.Name) {
			break
		}
	}
	if err := d.guest.move(e.Link, "", c.name, e.Name); err != nil {
		fmt.Fprintf(d.out, "dockerd: %v\n", err)
		d.call("NetworkDriver.Leave", e)
		return false
	}
	if e.gateway = a["Gateway"] != ""; e.gateway {
		if _, ok := d.call("NetworkDriver.ProgramExternalConnectivity", e); !ok {
			e.gateway = false
			d.leave(c, e, true)
			return false
		}
	} else if a["DisableGatewayService"] != true {
		fmt.Fprintln(d.out, "dockerd: made docker_gwbridge")
	}
	d.call("NetworkDriver.EndpointOperInfo", e)
	return true
}

// leave takes an endpoint out of its container; there is still one, or not.
func (d *dockerd) leave(c *container, e *dockerEndpoint, alive bool) {
	if e.gateway {
		d.call("NetworkDriver.RevokeExternalConnectivity", e)
	}
	d.call("NetworkDriver.Leave", e)
	if alive {
		if err := d.guest.move(e.Name, c.name, "", e.Link); err != nil {
			fmt.Fprintf(d.out, "dockerd: %v\n", err)
		}
	}
}

// stop is docker stop, and what dockerd does to a container that it finds dead.
func (d *dockerd) stop(name string, alive bool) {
	c := d.containers[name]
	for _, e := range c.endpoints {
		d.leave(c, e, alive)
		d.call("NetworkDriver.DeleteEndpoint", e)
		d.release(e)
	}
	delete(d.containers, name)
}

// disconnect is docker network disconnect.
func (d *dockerd) disconnect(name, network string) {
	c := d.containers[name]
	c.endpoints = slices.DeleteFunc(c.endpoints, func(e *dockerEndpoint) bool {
		if e.Network.Name != network {
			return false
		}
		d.leave(c, e, true)
		d.call("NetworkDriver.DeleteEndpoint", e)
		d.release(e)
		return true
	})
}
