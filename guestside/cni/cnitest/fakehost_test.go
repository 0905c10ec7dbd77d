package cnitest_test

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/hostclient/hosttest"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/vnic"
)

// fakeHost is a hypervisor whose vNICs are veth pairs: one end in the VM's
// first namespace, the other in its own.
type fakeHost struct {
	*hosttest.Fake
	vm, ns *netnsx.NS
	agent  *guestside.Agent // set while nothing calls
	// attached is called when a vNIC is in its pod, before anyone is told. Optional.
	attached func()
}

func newFakeHost(vm, ns *netnsx.NS) *fakeHost {
	h := &fakeHost{vm: vm, ns: ns, Fake: hosttest.New(
		vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.99.1.0/24"), netip.MustParsePrefix("fd99:1::/64")}},
		vnic.Network{Name: "red", Subnets: []netip.Prefix{netip.MustParsePrefix("10.99.2.0/24"), netip.MustParsePrefix("fd99:2::/64")}},
	)}
	h.Slots = 6
	h.OnPlug, h.OnUnplug = h.plug, h.unplug
	return h
}

// stepLimit bounds what the host asks of the agent.
const stepLimit = 20 * time.Second

// plug has the agent move a new veth into its pod.
func (h *fakeHost) plug(a *vnic.Attachment) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	m := move(*a)
	err := h.agent.Prepare(ctx, m)
	if err == nil {
		err = h.makePair(m)
	}
	if err != nil {
		return err
	}
	if _, _, err := h.agent.Attach(ctx, m); err != nil {
		return errors.Join(err, h.removePair(m))
	}
	a.GuestPCI = ""
	if h.attached != nil {
		h.attached()
	}
	return nil
}

func (h *fakeHost) unplug(a vnic.Attachment) {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	m := move(a)
	if err := errors.Join(h.agent.Release(ctx, m), h.removePair(m)); err != nil {
		panic(err)
	}
}

func move(a vnic.Attachment) vnic.Move {
	return vnic.Move{
		ID: a.VNIC(), MAC: a.MAC, Netns: a.Request.Netns, Interface: a.Request.Interface, MTU: a.MTU, Queues: 1,
		Addresses: a.Leases, Routes: a.Routes(),
	}
}

// makePair makes the veth pair, with its far end up.
func (h *fakeHost) makePair(m vnic.Move) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = m.ID.LinkName(), m.MAC.HardwareAddr()
	err := h.vm.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: m.ID.LinkName(), PeerNamespace: netlink.NsFd(h.ns.FD())})
	})
	if err != nil {
		return err
	}
	return h.ns.Do(func() error {
		l, err := netlink.LinkByName(m.ID.LinkName())
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// removePair removes the pair, wherever its other end is.
func (h *fakeHost) removePair(m vnic.Move) error {
	return h.ns.Do(func() error {
		l, err := netlink.LinkByName(m.ID.LinkName())
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return nil // with its pod
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// exhaust fills all slots.
func (h *fakeHost) exhaust(ctx context.Context) (func(context.Context) error, error) {
	var pods []string
	for i := 0; h.Ready(ctx, "blue") == nil; i++ {
		a := vnic.Attachment{MAC: vnic.NewMAC(), Request: vnic.Request{Key: vnic.Key{Pod: "filler-" + strconv.Itoa(i), Interface: "eth0"}, Manager: "cni"}}
		pods = append(pods, h.Seed(a).Request.Pod)
	}
	return func(ctx context.Context) error {
		var errs error
		for _, pod := range pods {
			errs = errors.Join(errs, h.Detach(ctx, pod, "eth0"))
		}
		return errs
	}, nil
}

func (h *fakeHost) list(ctx context.Context) ([]string, error) {
	all, err := h.Attachments(ctx, cniapi.Manager)
	var keys []string
	for _, a := range all {
		keys = append(keys, a.Request.Pod+"/"+a.Request.Interface)
	}
	return keys, err
}
