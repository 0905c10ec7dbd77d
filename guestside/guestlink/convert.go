package guestlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc/status"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/guestside/internal/agentconv"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

const (
	maxNICs      = 2048
	maxAddresses = 64 // of one vNIC
	maxText      = 512
	maxPath      = 4096
)

// errAnswer is returned when an agent's answer makes no sense.
var errAnswer = errors.New("malformed answer of the agent")

func fromMove(m vnic.Move) *agentv1.MoveRequest {
	req := &agentv1.MoveRequest{
		Id: string(m.ID), Mac: m.MAC.String(), Netns: m.Netns, Interface: m.Interface,
		Mtu: toUint32(m.MTU), Queues: toUint32(m.Queues), Handover: m.Handover, Routes: agentconv.FromRoutes(m.Routes),
	}
	for _, p := range m.Addresses {
		req.Addresses = append(req.Addresses, p.String())
	}
	for _, n := range m.Neighbours {
		req.Neighbours = append(req.Neighbours, &agentv1.Neighbour{Address: n.Address.String(), Mac: n.MAC.String()})
	}
	return req
}

func toUint32(n int) uint32 { return uint32(min(max(n, 0), 1<<30)) }

func toDuration(nanos int64) time.Duration {
	return min(max(time.Duration(nanos), 0), time.Hour)
}

func toInfo(m *agentv1.InfoResponse) (AgentInfo, error) {
	info := AgentInfo{Version: m.GetVersion(), BootID: m.GetBootId(), Kernel: m.GetKernel()}
	for _, s := range []string{info.Version, info.BootID, info.Kernel} {
		if err := checkText(s, maxText); err != nil {
			return AgentInfo{}, err
		}
	}
	return info, nil
}

// toOwnNIC reads the vNIC with a MAC that was asked for.
func toOwnNIC(m *agentv1.NIC, mac vnic.MAC) (vnic.NIC, error) {
	nic, err := toNIC(m)
	if err != nil {
		return vnic.NIC{}, err
	}
	if nic.MAC != mac {
		return vnic.NIC{}, fmt.Errorf("%w: vnic %s instead of %s", errAnswer, nic.MAC, mac)
	}
	return nic, nil
}

func toNICs(list []*agentv1.NIC) ([]vnic.NIC, error) {
	if len(list) > maxNICs {
		return nil, fmt.Errorf("%w: %d vnics, at most %d make sense", errAnswer, len(list), maxNICs)
	}
	nics := make([]vnic.NIC, 0, len(list))
	for _, m := range list {
		nic, err := toNIC(m)
		if err != nil {
			return nil, err
		}
		nics = append(nics, nic)
	}
	return nics, nil
}

func toNIC(m *agentv1.NIC) (nic vnic.NIC, err error) {
	if m.GetId() != "" {
		if nic.ID, err = vnic.ParseID(m.GetId()); err != nil {
			return vnic.NIC{}, malformed(err)
		}
	}
	if nic.MAC, err = vnic.ParseMAC(m.GetMac()); err != nil {
		return vnic.NIC{}, malformed(err)
	}
	for _, f := range []struct {
		from  string
		to    *string
		limit int
	}{
		{m.GetPci(), &nic.PCI, 64},
		{m.GetDriver(), &nic.Driver, 64},
		{m.GetInterface(), &nic.Interface, 15},
		{m.GetNetns(), &nic.Netns, maxPath},
	} {
		if err := checkText(f.from, f.limit); err != nil {
			return vnic.NIC{}, err
		}
		*f.to = f.from
	}
	nic.Up = m.GetUp()
	nic.Addresses, err = toPrefixes(m.GetAddresses())
	return nic, err
}

// toContainer reads a container, whose names become those of an attachment.
func toContainer(m *agentv1.ResolveResponse) (vnic.Container, error) {
	c := vnic.Container{ID: m.GetId(), Name: m.GetName(), Pod: m.GetPod(), Netns: m.GetNetns()}
	if err := vnic.CheckPodName(c.Pod); err != nil {
		return vnic.Container{}, malformed(err)
	}
	for _, s := range []string{c.ID, c.Name, c.Netns} {
		if err := checkText(s, maxText); err != nil {
			return vnic.Container{}, err
		}
	}
	return c, nil
}

func toPrefixes(list []string) ([]netip.Prefix, error) {
	if len(list) > maxAddresses {
		return nil, fmt.Errorf("%w: %d addresses of one vnic, at most %d make sense", errAnswer, len(list), maxAddresses)
	}
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// malformed takes the sentinel from an error of a parser: the caller's
// arguments were not the invalid ones.
func malformed(err error) error { return fmt.Errorf("%w: %s", errAnswer, printable(err.Error())) }

// checkText refuses what would spoil a log, a terminal or a table.
func checkText(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: text of %d bytes, at most %d make sense", errAnswer, len(s), limit)
	}
	if printable(s) != s {
		return fmt.Errorf("%w: unprintable text %q", errAnswer, s)
	}
	return nil
}

// printable replaces what is not printable and cuts what is too long.
func printable(s string) string {
	s = agentconv.Printable(s)
	if len(s) > maxPath {
		return s[:maxPath] + "..."
	}
	return s
}

// said are the sentinels that an agent may fail with. It may not claim that
// another VM is unknown, or that an address is taken.
func said() []error {
	return []error{
		vnic.ErrInvalid, vnic.ErrUnknownPod, vnic.ErrNameTaken, vnic.ErrNICMissing, vnic.ErrConflict,
		vnic.ErrInUse, vnic.ErrUnsupported, vnic.ErrDiffers, vnic.ErrUnknownContainer,
	}
}

// agentError has an agent's words and one of said, or none.
type agentError struct {
	text string
	err  error
}

func (e *agentError) Error() string { return e.text }
func (e *agentError) Unwrap() error { return e.err }

// toError makes the error that an agent answered with fit to be shown.
func toError(err error) error {
	if errors.Is(err, errAnswer) {
		return err
	}
	err = rpcerr.Decode(err)
	out := &agentError{text: printable(status.Convert(err).Message())}
	for _, s := range said() {
		if errors.Is(err, s) {
			out.err = s
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		out.err = vnic.ErrAgentUnavailable
	}
	return out
}
