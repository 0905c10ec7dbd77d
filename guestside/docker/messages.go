package docker

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
)

// The messages of the protocol, by the names of their fields there. An empty one
// says that all went well.

type empty struct{}

type activated struct{ Implements []string }

type capabilities struct{ Scope, ConnectivityScope string }

// bag has options of all sorts; each of them is read by who knows it.
type bag map[string]json.RawMessage

// Options that dockerd sends.
const (
	optGeneric  = "com.docker.network.generic" // what people gave by -o
	optInternal = "com.docker.network.internal"
	optPorts    = "com.docker.network.portmap"
	optMTU      = "com.docker.network.driver.mtu"
	optPrefix   = "com.docker.network.container_iface_prefix"
)

type createNetworkRequest struct {
	NetworkID          string
	Options            bag
	IPv4Data, IPv6Data []ipamData
}

// ipamData is an address pool of a docker network.
type ipamData struct {
	AddressSpace string
	Pool         netip.Prefix
	Gateway      netip.Prefix
	AuxAddresses map[string]netip.Prefix
}

type networkRequest struct{ NetworkID string }

type allocateRequest struct {
	NetworkID string
	Options   map[string]string
}

type allocated struct{ Options map[string]string }

type gateways struct{ SkipIPv4, SkipIPv6 bool }

type endpointInterface struct{ Address, AddressIPv6, MacAddress string }

type createEndpointRequest struct {
	endpointRequest
	Interface endpointInterface
	Options   bag
}

type createdEndpoint struct{ Interface endpointInterface }

type endpointRequest struct{ NetworkID, EndpointID string }

type endpointInfo struct{ Value map[string]any }

type joinRequest struct {
	endpointRequest
	SandboxKey string
}

type joined struct {
	InterfaceName         interfaceName
	Gateway, GatewayIPv6  string
	StaticRoutes          []staticRoute `json:",omitempty"`
	DisableGatewayService bool
}

type interfaceName struct{ SrcName, DstPrefix string }

type staticRoute struct {
	Destination string
	RouteType   int // 0: over NextHop, 1: on-link
	NextHop     string
}

type programRequest struct {
	endpointRequest
	Options bag
}

type ipamCapabilities struct{ RequiresMACAddress, RequiresRequestReplay bool }

type addressSpaces struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }

type poolRequest struct {
	AddressSpace, Pool, SubPool string
	Options                     map[string]string
	V6                          bool
}

type requestedPool struct {
	PoolID, Pool string
	Data         map[string]string `json:",omitempty"`
}

type releasePoolRequest struct{ PoolID string }

type addressRequest struct {
	PoolID, Address string
	Options         map[string]string
}

type requestedAddress struct{ Address string }

// maxID is the longest ID that is taken from dockerd; its own have 64 digits.
const maxID = 128

func checkID(what, id string) error {
	if id == "" || len(id) > maxID || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.") != "" || strings.ContainsAny(id[:1], "-_.") {
		return errors.New(what + " is no ID")
	}
	return nil
}

func (q createNetworkRequest) check() error { return checkID("NetworkID", q.NetworkID) }
func (q networkRequest) check() error       { return checkID("NetworkID", q.NetworkID) }

func (q endpointRequest) check() error {
	return errors.Join(checkID("NetworkID", q.NetworkID), checkID("EndpointID", q.EndpointID))
}

// optional reads what may be left out as an empty text.
func optional[T any](s string, parse func(string) (T, error)) (v T, err error) {
	if s == "" {
		return v, nil
	}
	return parse(s)
}
