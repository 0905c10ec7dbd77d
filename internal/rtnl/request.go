package rtnl

import (
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Request is something for the kernel to do or to tell, to be sent by
// [Conn.Do]. It is used once.
type Request struct {
	what     string // "add address 10.0.0.2/24"
	msg      *nl.NetlinkRequest
	tolerate []unix.Errno
	reply    func(syscall.NetlinkMessage) error // one message of the answer
	reset    func()                             // forgets the answer so far
}

// Tolerate returns r such that those errors of it are none.
func (r Request) Tolerate(errs ...unix.Errno) Request {
	r.tolerate = append(slices.Clip(r.tolerate), errs...)
	return r
}

// String says what the request is for.
func (r Request) String() string { return r.what }

func (r Request) isDump() bool { return r.msg.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP }

func newRequest(what string, kind, flags int, data ...nl.NetlinkRequestData) Request {
	msg := nl.NewNetlinkRequest(kind, flags)
	for _, d := range data {
		msg.AddData(d)
	}
	return Request{what: what, msg: msg}
}
