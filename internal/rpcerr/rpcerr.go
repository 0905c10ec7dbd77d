// Package rpcerr carries errors over gRPC and ttrpc, so that [errors.Is] says
// the same on both ends.
//
// Both protocols transport a google.rpc.Status. An error with a code of
// package vnic goes into it as a google.rpc.ErrorInfo of the domain "brfuse"
// whose reason is the code.
package rpcerr

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/brfuse/brfuse/vnic"
)

const domain = "brfuse"

var grpcCodes = map[error]codes.Code{
	vnic.ErrInvalid:               codes.InvalidArgument,
	vnic.ErrNotFound:              codes.NotFound,
	vnic.ErrUnknownVM:             codes.NotFound,
	vnic.ErrUnknownNetwork:        codes.NotFound,
	vnic.ErrUnknownPod:            codes.NotFound,
	vnic.ErrConflict:              codes.AlreadyExists,
	vnic.ErrInUse:                 codes.FailedPrecondition,
	vnic.ErrNoSlot:                codes.ResourceExhausted,
	vnic.ErrAddressTaken:          codes.AlreadyExists,
	vnic.ErrAddressOutside:        codes.InvalidArgument,
	vnic.ErrPoolExhausted:         codes.ResourceExhausted,
	vnic.ErrNameTaken:             codes.AlreadyExists,
	vnic.ErrAgentUnavailable:      codes.Unavailable,
	vnic.ErrNICMissing:            codes.DeadlineExceeded,
	vnic.ErrVMGone:                codes.Unavailable,
	vnic.ErrUnsupported:           codes.Unimplemented,
	vnic.ErrHostUnavailable:       codes.Unavailable,
	vnic.ErrHypervisorUnavailable: codes.Unavailable,
	vnic.ErrForbidden:             codes.PermissionDenied,
	vnic.ErrPortTaken:             codes.AlreadyExists,
	vnic.ErrDiffers:               codes.FailedPrecondition,
	vnic.ErrUnknownContainer:      codes.NotFound,
}

// Encode returns err as a status error. A nil error stays nil. The text may have
// names in it that a pod gave its interfaces, so bytes that are not UTF-8, which
// a message can't have, become question marks: ttrpc would end the connection.
func Encode(err error) error {
	if err == nil {
		return nil
	}
	text := strings.ToValidUTF8(err.Error(), "?")
	code := vnic.CodeOf(err)
	if code == "" {
		return status.Error(plainCode(err), text)
	}
	c, ok := grpcCodes[vnic.ErrorOf(code)]
	if !ok {
		c = codes.Unknown // the zero value would be success
	}
	st := status.New(c, text)
	if with, derr := st.WithDetails(&errdetails.ErrorInfo{Reason: string(code), Domain: domain}); derr == nil {
		st = with
	}
	return st.Err()
}

func plainCode(err error) codes.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Unknown
}

// Decode returns the error that a call failed with. An error that Encode made
// gets its message and sentinel back; every other error stays as it is.
func Decode(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == domain {
			if sentinel := vnic.ErrorOf(vnic.Code(info.GetReason())); sentinel != nil {
				return &remoteError{text: st.Message(), err: sentinel}
			}
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return &remoteError{text: st.Message(), err: context.Canceled}
	case codes.DeadlineExceeded:
		return &remoteError{text: st.Message(), err: context.DeadlineExceeded}
	case codes.Unknown:
		return &remoteError{text: st.Message(), err: err} // the words alone, without the protocol's
	}
	return err
}

// remoteError has the other side's words and this side's sentinel.
type remoteError struct {
	text string
	err  error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }
