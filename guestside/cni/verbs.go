package cni

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// Add gives the container its vNIC and writes the result.
func (p *Plugin) Add(args *skel.CmdArgs) (err error) {
	c, err := p.load(args)
	if err != nil {
		return err
	}
	before, err := prevResult(c)
	if err != nil {
		return err
	}
	req, err := addRequest(c, args)
	if err != nil {
		return err
	}
	if err := p.forPod(args.Netns); err != nil {
		return err
	}
	dns := c.dns()
	if c.IPAM.Type != "" {
		defer func() {
			if err != nil {
				err = join(err, p.forward(c, args, "DEL"))
			}
		}()
		if dns, err = p.delegateAdd(c, args, &req); err != nil {
			return err
		}
	}
	r, err := p.ask(c, req)
	if err != nil {
		return err
	}
	if r.Attachment == nil {
		return types.NewError(types.ErrInternal, "brfuse-agent answered without an attachment", "")
	}
	if dns.IsEmpty() {
		dns = served(r.Attachment.DNS)
	}
	return p.print(c, result(before, args, *r.Attachment, dns))
}

// Del takes the container's vNIC away, and then gives a delegated plugin its
// addresses back: not before, or another pod might get one that is still in use. It
// needs nothing but the container's ID and the interface's name. See the package
// comment for what happens when the agent is away.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c, err := p.loadForgiving(args)
	if err != nil {
		return err
	}
	_, err = p.ask(c, requestOf(cniapi.Del, c, args))
	if retry := asError(err); retry != nil && retry.Code == types.ErrTryAgainLater && netnsThere(args.Netns) != nil {
		fmt.Fprintf(p.stderr, "brfuse-cni: DEL %s %s: the network namespace is gone, brfuse takes the vnic back by itself later: %v\n",
			args.ContainerID, args.IfName, err)
		err = nil
	}
	if err != nil {
		return err
	}
	return p.forward(c, args, "DEL")
}

// Check compares the container's vNIC with what the chain's result says.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	c, err := p.load(args)
	if err != nil {
		return err
	}
	before, err := prevResult(c)
	if err != nil {
		return err
	}
	if before == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "\"prevResult\" is missing", "CHECK compares with the result of ADD")
	}
	req := requestOf(cniapi.Check, c, args)
	if req.Expect, err = expect(before, args); err != nil {
		return err
	}
	errIPAM := p.forward(c, args, "CHECK")
	if err = netnsThere(args.Netns); err == nil {
		_, err = p.ask(c, req)
	}
	return join(err, errIPAM)
}

// GC takes away all vNICs of the CNI network but those that are still valid. That
// none is listed, or no list is there, means all: libcni leaves the key out when
// its caller names none, as `cnitool gc` does.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	c, err := p.load(args)
	if err != nil {
		return err
	}
	req := cniapi.Request{Verb: cniapi.GC}
	for _, v := range c.Valid {
		req.Valid = append(req.Valid, cniapi.Attachment{ContainerID: v.ContainerID, Interface: v.IfName})
	}
	_, err = p.ask(c, req)
	return join(err, p.forward(c, args, "GC"))
}

// Status tells whether an ADD would work now.
func (p *Plugin) Status(args *skel.CmdArgs) error {
	c, err := p.load(args)
	if err != nil {
		return err
	}
	errIPAM := p.forward(c, args, "STATUS")
	_, err = p.ask(c, cniapi.Request{Verb: cniapi.Status, Attach: vnic.Request{Network: c.Network}})
	if e := asError(err); e != nil && e.Code == types.ErrTryAgainLater {
		err = types.NewError(types.ErrPluginNotAvailable, e.Msg, e.Details)
	}
	return join(err, errIPAM)
}

// forPod returns an error that names CNI_NETNS when path is no network namespace,
// or the plugin's own, which is the VM's.
func forPod(path string) error {
	pod, err := openNetns(path)
	if pod == nil {
		return err
	}
	own, err := netnsx.Current()
	if err == nil && own.ID() == pod.ID() {
		err = types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("invalid CNI_NETNS %q: it is the vm's own", path), "give the path of the container's network namespace")
	}
	if own != nil {
		err = errors.Join(err, own.Close())
	}
	return errors.Join(err, pod.Close())
}

// netnsThere returns an error that names CNI_NETNS when there is no network
// namespace at path.
func netnsThere(path string) error {
	ns, err := openNetns(path)
	if ns == nil {
		return err
	}
	return ns.Close()
}

// openNetns opens the network namespace at path; the error names CNI_NETNS when there
// is none. One that the plugin may not open is nil, without an error: the agent may.
func openNetns(path string) (*netnsx.NS, error) {
	if !filepath.IsAbs(path) {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("invalid CNI_NETNS %q", path), "give the absolute path of the container's network namespace")
	}
	ns, err := netnsx.Open(path)
	if errors.Is(err, vnic.ErrUnknownPod) {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("invalid CNI_NETNS %q: no network namespace", path), err.Error())
	}
	if err != nil {
		return nil, nil
	}
	return ns, nil
}
