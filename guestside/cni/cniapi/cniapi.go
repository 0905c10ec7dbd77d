// Package cniapi is what the CNI plugin and the guest's agent say to each
// other: over a unix stream socket, one request and one response, each a JSON
// object on a line of its own. The plugin keeps the connection open while it
// waits; when it is gone, the agent takes back what it was doing.
//
// The plugin starts for every call, so this package is small: it has no more
// than the standard library and package vnic below it.
package cniapi

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// Version is that of the messages. Both sides have to speak the same.
const Version = 1

// DefaultSocket is where the agent listens.
const DefaultSocket = "/run/brfuse/cni.sock"

// MaxTimeout is how long the agent tries to do what it is asked for.
const MaxTimeout = 2 * time.Minute

// Manager is the [vnic.Request]'s for what CNI asked for.
const Manager = "cni"

// Labels of attachments.
const (
	LabelNetwork      = "cni.network" // the name of the CNI network configuration
	LabelPodNamespace = "k8s.namespace"
	LabelPodName      = "k8s.pod"
	LabelPodUID       = "k8s.uid"
)

// Verb is what is asked for: a CNI operation.
type Verb string

// Verbs, as CNI_COMMAND has them.
const (
	Add    Verb = "ADD"
	Del    Verb = "DEL"
	Check  Verb = "CHECK"
	GC     Verb = "GC"
	Status Verb = "STATUS"
)

// Request is the plugin's.
type Request struct {
	Version int  `json:"version"`
	Verb    Verb `json:"verb"`
	// Timeout is how long the plugin waits, in milliseconds, at most MaxTimeout.
	// Default: MaxTimeout.
	Timeout int64 `json:"timeoutMilliseconds,omitempty"`
	// Conf is the name of the CNI network configuration. Required.
	Conf string `json:"conf"`
	// Attach is the wanted attachment. ADD takes all of it; DEL takes Pod and
	// Interface, CHECK Netns too, STATUS only Network. Pod is CNI_CONTAINERID.
	Attach vnic.Request `json:"attach,omitzero"`
	// AutoDefaultRoute leaves out default routes, those among Attach.Routes too,
	// when the pod has one already. Of ADD only.
	AutoDefaultRoute bool `json:"autoDefaultRoute,omitempty"`
	// Expect is what an earlier ADD reported, of CHECK only.
	Expect Expect `json:"expect,omitzero"`
	// Valid are the attachments that GC must leave.
	Valid []Attachment `json:"valid,omitempty"`
}

// Expect is what a runtime knows of an attachment, from the result of the
// chain's last plugin.
type Expect struct {
	MAC       vnic.MAC       `json:"mac,omitzero"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Routes have no gateway where the result has none.
	Routes []vnic.Route `json:"routes,omitempty"`
}

// Attachment names one in CNI's way.
type Attachment struct {
	ContainerID string `json:"containerID"`
	Interface   string `json:"interface"`
}

// Response is the agent's.
type Response struct {
	Version int `json:"version"`
	// Error is why it could not be done.
	Error *Error `json:"error,omitempty"`
	// Attachment is what ADD made.
	Attachment *vnic.Attachment `json:"attachment,omitempty"`
}

// CNI error codes of brfuse's own. Those below 100 are the CNI specification's.
const (
	CodeAddressTaken uint = 100 // a wanted address or MAC is another's
	CodePortTaken    uint = 101 // a wanted port of the hypervisor is another's
	CodeForbidden    uint = 102 // the hypervisor's operator does not allow it to this guest
	CodeConflict     uint = 103 // something of that name exists and differs
	CodeDiffers      uint = 104 // CHECK: the attachment is not as it was made, or gone
	CodeUnsupported  uint = 105 // this kernel or hypervisor lacks a feature
	CodeVersion      uint = 106 // plugin and agent are of different releases
)

// Error is a CNI error.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`               // short
	Details string `json:"details,omitempty"` // with the remedy
}

// Error implements error.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Details
}

// Key returns the attachment's container ID and interface.
func (r Request) Key() Attachment {
	return Attachment{ContainerID: r.Attach.Pod, Interface: r.Attach.Interface}
}

// Validate returns what is wrong with a request as an [Error] with the CNI code
// for it. What the host checks anyway is not checked here.
func (r Request) Validate() error {
	if r.Version != Version {
		return VersionError(r.Version, Version)
	}
	if r.Timeout < 0 || r.Timeout > MaxTimeout.Milliseconds() {
		return &Error{Code: 7, Msg: fmt.Sprintf("timeout of %d ms is not in 0-%d", r.Timeout, MaxTimeout.Milliseconds())}
	}
	if err := vnic.CheckLabels(map[string]string{LabelNetwork: r.Conf}); err != nil || r.Conf == "" {
		return &Error{Code: 7, Msg: fmt.Sprintf("network name %.64q", r.Conf), Details: "choose a shorter, printable name for the CNI network"}
	}
	switch r.Verb {
	case Add, Del, Check:
		return r.validatePod()
	case GC, Status:
		return nil
	}
	return &Error{Code: 4, Msg: fmt.Sprintf("unknown CNI_COMMAND %.16q", r.Verb)}
}

func (r Request) validatePod() error {
	if err := vnic.CheckPodName(r.Attach.Pod); err != nil {
		return &Error{Code: 4, Msg: "invalid CNI_CONTAINERID", Details: err.Error()}
	}
	if err := vnic.CheckInterface(r.Attach.Interface); err != nil {
		return &Error{Code: 4, Msg: "invalid CNI_IFNAME", Details: err.Error()}
	}
	if r.Verb != Del && r.Attach.Netns == "" {
		return &Error{Code: 4, Msg: "CNI_NETNS is missing"}
	}
	return nil
}

// VersionError tells that two sides speak different versions.
func VersionError(plugin, agent int) *Error {
	return &Error{
		Code: CodeVersion, Msg: "brfuse-cni and brfuse-agent are of different releases",
		Details: fmt.Sprintf("the plugin speaks version %d, the agent version %d: install both from one release and restart the agent", plugin, agent),
	}
}
