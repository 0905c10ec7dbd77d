// Package cni is the CNI plugin of brfuse, for the versions 0.3.1, 0.4.0, 1.0.0
// and 1.1.0 of the specification. It gives a pod a vNIC of its own by asking the
// guest's agent for it, see package cniapi.
//
// A plugin starts anew for every call, so this one does no more than that: it
// reads the configuration, asks, and writes the result. It starts a process only
// when the configuration has a delegated IPAM plugin.
//
// # Configuration
//
// "type" is the name of the program's file. All of these are optional:
//
//	network         the brfuse network; default: the agent's, or the only one
//	mtu             in bytes; default: the network's
//	queues          pairs of them; default: 1
//	routes          [{"dst": PREFIX, "gw": ADDRESS}], beside the default routes
//	noDefaultRoute  true: none over this vNIC; false: in any case; default: as long
//	                as the pod has none over another one
//	ipam            {"type": PLUGIN, ...}: that plugin chooses the addresses, out of
//	                the network's subnets, and the routes
//	dns             as in the specification; it goes into the result. Default: what the
//	                network's gateways serve
//	socket          the agent's; default: /run/brfuse/cni.sock
//	timeout         in seconds, at most 120; default: 30
//
// Its capabilities are ips, mac, bandwidth, portMappings and dns, with ipam also
// ipRanges. Ports are published, and bandwidth is limited, by the hypervisor.
// Addresses and MAC are also taken from "args": {"cni": {"ips": [], "mac": ""}},
// and from IP and MAC in CNI_ARGS, in this order. K8S_POD_NAMESPACE, K8S_POD_NAME
// and K8S_POD_UID become labels of the attachment.
//
// The codes of errors are the specification's, and those of package cniapi.
//
// # When the agent or the hypervisor's daemon is away
//
// ADD, CHECK and GC fail with code 11, which tells the runtime to repeat them,
// STATUS with 50. DEL fails with 11 as long as the pod's network namespace is
// there: the vNIC is in use then, and nothing else would take it from a pod that
// lives on. When the namespace is gone, or none is named, DEL succeeds: the vNIC
// is back in the VM's first namespace, and brfuse gives it and its addresses
// back by itself as soon as agent and daemon see each other again. So pods
// don't hang in deletion because a daemon is being updated, and nothing is
// leaked.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/internal/buildinfo"
)

// latest is the version of the specification that errors name before the
// configuration's is known.
const latest = "1.1.0"

// Versions returns those of the specification that the plugin speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", latest)
}

// Plugin carries out one call. Its zero value is not usable; see [New].
type Plugin struct {
	stdout, stderr io.Writer
	// call asks the agent.
	call func(conf config, req cniapi.Request) (cniapi.Response, error)
	// delegate runs another plugin.
	delegate func(d delegation) ([]byte, error)
	// forPod checks that a path is that of a pod's network namespace.
	forPod  func(path string) error
	version string // of the configuration, once it is known
}

// New returns a plugin that writes its result to stdout, and what is for people
// to stderr.
func New(stdout, stderr io.Writer) *Plugin {
	return &Plugin{stdout: stdout, stderr: stderr, call: call, delegate: run, forPod: forPod, version: latest}
}

// Main carries out the call that the environment and standard input tell of, and
// returns the exit code.
func Main() int {
	p := New(os.Stdout, os.Stderr)
	about := ""
	if os.Getenv("CNI_COMMAND") == "" {
		about = "CNI plugin brfuse " + buildinfo.Version()
	}
	e := skel.PluginMainFuncsWithError(p.Funcs(), Versions(), about)
	if e == nil {
		return 0
	}
	p.printError(e)
	return 1
}

// Funcs returns the functions for the verbs.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// printError writes an error as the specification wants it, with the version.
func (p *Plugin) printError(e *types.Error) {
	b, err := json.Marshal(struct {
		Version string `json:"cniVersion"`
		*types.Error
	}{p.version, e})
	if err == nil {
		_, err = fmt.Fprintf(p.stdout, "%s\n", b)
	}
	if err != nil {
		fmt.Fprintln(p.stderr, "brfuse-cni:", err)
	}
}

// load reads the configuration and notes its version.
func (p *Plugin) load(args *skel.CmdArgs) (config, error) {
	c, err := parseConfig(args.StdinData)
	if c.CNIVersion != "" {
		p.version = c.CNIVersion
	}
	return c, err
}

// loadForgiving is load for DEL, which must not fail because a key that it doesn't
// use has a value of a wrong kind.
func (p *Plugin) loadForgiving(args *skel.CmdArgs) (config, error) {
	c, err := p.load(args)
	if e := asError(err); e == nil || e.Code != types.ErrInvalidNetworkConfig || !json.Valid(args.StdinData) {
		return c, err
	}
	fmt.Fprintf(p.stderr, "brfuse-cni: DEL %s %s: the configuration is wrong, which DEL can do without: %v\n", args.ContainerID, args.IfName, err)
	c.Timeout = 0
	if !filepath.IsAbs(c.Socket) {
		c.Socket = cniapi.DefaultSocket
	}
	return c, nil
}

// asError returns err as a CNI error.
func asError(err error) *types.Error {
	var te *types.Error
	var ae *cniapi.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &te):
		return te
	case errors.As(err, &ae):
		return types.NewError(ae.Code, ae.Msg, ae.Details)
	}
	return types.NewError(types.ErrInternal, "brfuse could not do it", err.Error())
}

// join returns one CNI error for several: the first one's code, all texts.
func join(errs ...error) error {
	var first *types.Error
	for _, err := range errs {
		e := asError(err)
		switch {
		case e == nil:
		case first == nil:
			first = types.NewError(e.Code, e.Msg, e.Details)
		case first.Details == "":
			first.Details = e.Error()
		default:
			first.Details += "; " + e.Error()
		}
	}
	if first == nil {
		return nil
	}
	return first
}

// ask asks the agent; its error is a [types.Error].
func (p *Plugin) ask(c config, req cniapi.Request) (cniapi.Response, error) {
	req.Version, req.Conf, req.Timeout = cniapi.Version, c.Name, c.timeout().Milliseconds()
	r, err := p.call(c, req)
	if err == nil && r.Error != nil {
		err = r.Error
	}
	if err != nil {
		return r, asError(err)
	}
	return r, nil
}
