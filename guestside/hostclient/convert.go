package hostclient

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/vnic"
)

// errAnswer is returned when an answer of the daemon makes no sense. The daemon
// owns the VM and is trusted; what it says is checked for its form.
var errAnswer = errors.New("malformed answer of brfused")

// maxAttachments is far more than a VM can have.
const maxAttachments = 1 << 14

// fromRequest returns a request as it is sent. What the daemon would refuse for its
// form is refused here: a request that is too large would end the session.
func fromRequest(r vnic.Request) (*agentv1.AttachRequest, error) {
	whole := r
	whole.VM, whole.Network = cmp.Or(r.VM, "this"), cmp.Or(r.Network, "any")
	if _, err := whole.Complete(); err != nil {
		return nil, fmt.Errorf("attach %s/%s: %w", r.Pod, r.Interface, err)
	}
	m := &agentv1.AttachRequest{
		Pod: r.Pod, Interface: r.Interface, Network: r.Network, Netns: r.Netns, Queues: uint32(r.Queues), Mtu: uint32(r.MTU),
		NoDefaultRoute: r.NoDefaultRoute, Handover: r.Handover, Manager: r.Manager, Labels: r.Labels, Exact: r.Exact,
		Routes: agentconv.FromRoutes(r.Routes), Ports: agentconv.FromPorts(r.Ports), Bandwidth: agentconv.FromBandwidth(r.Bandwidth),
	}
	if !r.MAC.IsZero() {
		m.Mac = r.MAC.String()
	}
	for _, a := range r.Addresses {
		m.Addresses = append(m.Addresses, a.String())
	}
	return m, nil
}

// appendPart adds a part of the attachments, which come in the order of their IDs.
func appendPart(list []vnic.Attachment, part *agentv1.AttachmentsResponse) ([]vnic.Attachment, error) {
	if part.GetMore() && len(part.GetAttachments()) == 0 || len(list)+len(part.GetAttachments()) > maxAttachments {
		return nil, fmt.Errorf("%w: parts of the attachments don't end", errAnswer)
	}
	for _, m := range part.GetAttachments() {
		a, err := toAttachment(m)
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && a.ID <= list[n-1].ID {
			return nil, fmt.Errorf("%w: attachment %s after %s", errAnswer, a.ID, list[n-1].ID)
		}
		list = append(list, a)
	}
	return list, nil
}

// toAttachment reads what the daemon tells of an attachment.
func toAttachment(m *agentv1.Attachment) (vnic.Attachment, error) {
	a := vnic.Attachment{Phase: vnic.Phase(m.GetPhase()), MTU: int(m.GetMtu()), GuestPCI: m.GetGuestPci()}
	a.Request = vnic.Request{
		Key: vnic.Key{Pod: m.GetPod(), Interface: m.GetInterface()}, Network: m.GetNetwork(), Netns: m.GetNetns(),
		Manager: m.GetManager(), Labels: m.GetLabels(), Handover: m.GetHandover(), NoDefaultRoute: m.GetNoDefaultRoute(),
	}
	err := errors.Join(
		set(&a.ID, m.GetId(), vnic.ParseID),
		setAll(&a.Leases, m.GetAddresses(), netip.ParsePrefix),
		setAll(&a.Gateways, m.GetGateways(), netip.ParseAddr),
		setAll(&a.DNS.Nameservers, m.GetNameservers(), netip.ParseAddr),
		setAll(&a.Request.Routes, m.GetRoutes(), agentconv.ToRoute),
		setAll(&a.Request.Ports, m.GetPorts(), agentconv.ToPort),
	)
	a.DNS.Search, a.DNS.Options = m.GetSearch(), m.GetDnsOptions()
	if m.GetDevice() != "" { // the vNIC comes from a pool
		err = errors.Join(err, set(&a.Device, m.GetDevice(), vnic.ParseID))
	}
	if m.GetMac() != "" { // none is leased before the first phase has passed
		err = errors.Join(err, set(&a.MAC, m.GetMac(), vnic.ParseMAC))
	}
	a.Request.Bandwidth = agentconv.ToBandwidth(m.GetBandwidth())
	if err != nil {
		return vnic.Attachment{}, fmt.Errorf("%w: attachment: %s", errAnswer, err.Error())
	}
	return a, nil
}

// set reads one value.
func set[M, V any](to *V, from M, read func(M) (V, error)) (err error) {
	*to, err = read(from)
	return err
}

// setAll reads a list; an empty one becomes nil.
func setAll[M, V any](to *[]V, from []M, read func(M) (V, error)) error {
	for _, m := range from {
		v, err := read(m)
		if err != nil {
			return err
		}
		*to = append(*to, v)
	}
	return nil
}

func toNetworks(list []*agentv1.Network) ([]vnic.Network, error) {
	nets := make([]vnic.Network, 0, len(list))
	for _, m := range list {
		n := vnic.Network{Name: m.GetName(), MTU: int(m.GetMtu())}
		err := errors.Join(setAll(&n.Subnets, m.GetSubnets(), netip.ParsePrefix), setAll(&n.Gateways, m.GetGateways(), netip.ParseAddr))
		if err != nil {
			return nil, fmt.Errorf("%w: network %q: %s", errAnswer, n.Name, err.Error())
		}
		nets = append(nets, n)
	}
	return nets, nil
}
