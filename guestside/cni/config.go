package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// defaultTimeout is how long a call takes at most. The kubelet gives a whole
// sandbox two to four minutes.
const defaultTimeout = 30 * time.Second

// config is a plugin configuration with what the runtime adds to it. Keys that
// it does not have are ignored.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	// Network is the brfuse network. Default: the agent's, or the only one.
	Network string `json:"network"`
	MTU     int    `json:"mtu"`    // bytes; default: the network's
	Queues  int    `json:"queues"` // default: 1
	// Routes are the pod's beside its default routes.
	Routes []*types.Route `json:"routes"`
	// NoDefaultRoute leaves out default routes. Default: they are left out when the
	// pod has one already, over the vNIC of another network.
	NoDefaultRoute *bool     `json:"noDefaultRoute"`
	IPAM           ipam      `json:"ipam"`
	DNS            types.DNS `json:"dns"`
	// Socket is the agent's. Default: [cniapi.DefaultSocket].
	Socket string `json:"socket"`
	// Timeout in seconds, at most [cniapi.MaxTimeout]. Default: 30.
	Timeout float64 `json:"timeout"`

	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
			MAC string   `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	Runtime    runtimeConfig        `json:"runtimeConfig"`
	PrevResult json.RawMessage      `json:"prevResult"`
	Valid      []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// ipam is the delegated plugin, if there is one.
type ipam struct {
	Type string `json:"type"`
}

// runtimeConfig has the values for the capabilities that the configuration says
// it has.
type runtimeConfig struct {
	IPs            []string        `json:"ips"`
	MAC            string          `json:"mac"`
	Bandwidth      bandwidth       `json:"bandwidth"`
	PortMappings   []portMapping   `json:"portMappings"`
	DNS            runtimeDNS      `json:"dns"`
	IPRanges       json.RawMessage `json:"ipRanges"`
	InfinibandGUID string          `json:"infinibandGUID"`
	DeviceID       string          `json:"deviceID"`
}

type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"` // bits per second
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

type runtimeDNS struct {
	Servers  []string `json:"servers"`
	Searches []string `json:"searches"`
	Options  []string `json:"options"`
}

// invalid is a configuration error about a key and its value.
func invalid(key string, value any, why string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid %q: %v", key, value), why)
}

// unsupported is the error for a key that can't be honoured.
func unsupported(key string, value any, why string) error {
	return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("unsupported %q: %v", key, value), why)
}

// parseConfig reads a configuration. What ADD alone uses is not checked yet: DEL
// must not fail because of it.
func parseConfig(b []byte) (config, error) {
	var c config
	err := json.Unmarshal(b, &c)
	var te *json.UnmarshalTypeError
	switch {
	case errors.As(err, &te):
		return c, invalid(te.Field, te.Value, "a value of another type is wanted: "+te.Type.String())
	case err != nil:
		return c, invalid("configuration", err, "")
	}
	if c.Socket == "" {
		c.Socket = cniapi.DefaultSocket
	}
	if !filepath.IsAbs(c.Socket) {
		return c, invalid("socket", c.Socket, "give an absolute path")
	}
	if c.Timeout < 0 || c.Timeout > cniapi.MaxTimeout.Seconds() {
		return c, invalid("timeout", c.Timeout, fmt.Sprintf("give seconds in 0-%v", cniapi.MaxTimeout.Seconds()))
	}
	return c, nil
}

func (c config) timeout() time.Duration {
	if c.Timeout == 0 {
		return defaultTimeout
	}
	return time.Duration(c.Timeout * float64(time.Second))
}

// routes returns the configured routes.
func (c config) routes() ([]vnic.Route, error) {
	var rs []vnic.Route
	for i, r := range c.Routes {
		if r == nil {
			continue
		}
		route, err := routeOf(r)
		if err != nil {
			return nil, invalid(fmt.Sprintf("routes[%d]", i), r, err.Error())
		}
		rs = append(rs, route)
	}
	return rs, nil
}

// routeOf returns a CNI route in brfuse's form, which has no more than the
// destination and the gateway.
func routeOf(r *types.Route) (vnic.Route, error) {
	var out vnic.Route
	dst, ok := prefixOf(r.Dst)
	if !ok {
		return out, errors.New("give \"dst\" as a prefix such as 10.0.0.0/8")
	}
	out.Destination = dst.Masked()
	if r.GW != nil {
		gw, ok := netip.AddrFromSlice(r.GW)
		if !ok {
			return out, errors.New("give \"gw\" as an address")
		}
		out.Gateway = gw.Unmap()
	}
	if r.MTU != 0 || r.AdvMSS != 0 || r.Priority != 0 || r.Table != nil || r.Scope != nil {
		return out, errors.New("mtu, advmss, priority, table and scope of a route are not supported")
	}
	return out, out.Validate()
}
