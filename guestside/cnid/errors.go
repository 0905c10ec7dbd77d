package cnid

import (
	"context"
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// Codes of the CNI specification that requests can end with.
const (
	codeEnvironment uint = 4  // a variable is invalid; the message names it
	codeConfig      uint = 7  // the network configuration is invalid
	codeRetry       uint = 11 // the runtime should repeat the request later
	codeUnavailable uint = 50 // of STATUS: an ADD would fail
	codeInternal    uint = 999
)

// kind is how an error is told to the runtime.
type kind struct {
	of     error
	code   uint
	msg    string
	remedy string // added to the details; most errors name theirs already
}

// kinds is in order of precedence.
func kinds() []kind {
	return []kind{
		{vnic.ErrUnknownPod, codeEnvironment, "CNI_NETNS is no network namespace of a pod", ""},
		{vnic.ErrNameTaken, codeEnvironment, "CNI_IFNAME exists in the container already", "call DEL first, or give another interface name"},
		{vnic.ErrForbidden, cniapi.CodeForbidden, "not allowed to this guest", "ask the hypervisor's operator, who sets it by `brfuse vm add --guest-network` and `brfused --publish-ports`"},
		{vnic.ErrUnknownNetwork, codeConfig, "unknown brfuse network", "set \"network\" in the CNI configuration to one that `brfuse network list` shows on the hypervisor"},
		{vnic.ErrAddressOutside, codeConfig, "address outside of the network", "ask for one in the network's subnets"},
		{vnic.ErrNoSlot, codeRetry, "no free PCI slot in this vm", ""},
		{vnic.ErrPoolExhausted, codeRetry, "no free address in the network", "delete pods, or give the network a larger subnet"},
		{vnic.ErrAddressTaken, cniapi.CodeAddressTaken, "address or mac is taken", "ask for another, or for none"},
		{vnic.ErrPortTaken, cniapi.CodePortTaken, "port of the hypervisor is taken", "publish another port"},
		{vnic.ErrDiffers, cniapi.CodeDiffers, "the attachment is not as it was made", "remove the container from the network and add it again"},
		{vnic.ErrNotFound, cniapi.CodeDiffers, "no such attachment", "remove the container from the network and add it again"},
		{vnic.ErrConflict, cniapi.CodeConflict, "exists and differs", ""},
		{vnic.ErrHostUnavailable, codeRetry, "the hypervisor's daemon is unavailable", "see that brfused runs on the hypervisor, and what `journalctl -u brfuse-agent` says in the vm"},
		{vnic.ErrAgentUnavailable, codeRetry, "the guest's agent is unavailable", "see that brfuse-agent runs in the vm"},
		{vnic.ErrVMGone, codeRetry, "the vm is unknown to its hypervisor's daemon", ""},
		{vnic.ErrUnknownVM, codeRetry, "the vm is unknown to its hypervisor's daemon", "register it by `brfuse vm add` on the hypervisor"},
		{vnic.ErrNICMissing, codeRetry, "the vnic did not appear", ""},
		{vnic.ErrUnsupported, cniapi.CodeUnsupported, "not supported here", ""},
		{vnic.ErrInvalid, codeConfig, "invalid network configuration", ""},
		{errStopped, codeRetry, "brfuse-agent stops", "repeat when it runs again"},
		{context.DeadlineExceeded, codeRetry, "not done in time", "repeat; \"timeout\" in the CNI configuration sets how long it may take"},
		{context.Canceled, codeRetry, "given up", "repeat"},
	}
}

// errorOf returns err as the CNI error that answers a request.
func errorOf(req cniapi.Request, err error) *cniapi.Error {
	e := &cniapi.Error{Code: codeInternal, Msg: "brfuse could not do it", Details: err.Error()}
	for _, k := range kinds() {
		if !errors.Is(err, k.of) {
			continue
		}
		e.Code, e.Msg = k.code, k.msg
		if k.remedy != "" {
			e.Details += "; " + k.remedy
		}
		break
	}
	switch {
	case req.Verb == cniapi.Check && errors.Is(err, vnic.ErrNICMissing):
		e.Code, e.Msg = cniapi.CodeDiffers, "the vnic is not in the pod"
	case req.Verb == cniapi.Status: // whatever it is, an ADD would fail by it
		e.Code = codeUnavailable
	case e.Code == codeEnvironment && errors.Is(err, vnic.ErrNameTaken):
		e.Msg = fmt.Sprintf("CNI_IFNAME %s exists in the container already", req.Attach.Interface)
	}
	return e
}
