package rpcerr_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

func TestEveryCodeTravels(t *testing.T) {
	for _, sentinel := range []error{
		vnic.ErrInvalid, vnic.ErrNotFound, vnic.ErrUnknownVM, vnic.ErrUnknownNetwork, vnic.ErrUnknownPod, vnic.ErrConflict,
		vnic.ErrInUse, vnic.ErrNoSlot, vnic.ErrAddressTaken, vnic.ErrAddressOutside, vnic.ErrPoolExhausted, vnic.ErrNameTaken,
		vnic.ErrAgentUnavailable, vnic.ErrNICMissing, vnic.ErrVMGone, vnic.ErrUnsupported, vnic.ErrHostUnavailable,
		vnic.ErrForbidden, vnic.ErrPortTaken, vnic.ErrDiffers, vnic.ErrUnknownContainer, vnic.ErrHypervisorUnavailable,
		context.Canceled, context.DeadlineExceeded,
	} {
		in := fmt.Errorf("attach web: %w", sentinel)
		wire := rpcerr.Encode(in)
		st, ok := status.FromError(wire)
		require.True(t, ok)
		assert.NotEqual(t, codes.OK, st.Code(), sentinel)
		assert.NotEqual(t, codes.Unknown, st.Code(), sentinel)
		// What the other side has is the status alone.
		out := rpcerr.Decode(status.ErrorProto(st.Proto()))
		require.ErrorIs(t, out, sentinel)
		assert.Equal(t, in.Error(), out.Error())
	}
}

func TestPlainErrors(t *testing.T) {
	require.NoError(t, rpcerr.Encode(nil))
	require.NoError(t, rpcerr.Decode(nil))
	wire := rpcerr.Encode(errors.New("disk on fire"))
	assert.Equal(t, codes.Unknown, status.Code(wire))
	require.ErrorContains(t, rpcerr.Decode(wire), "disk on fire")
	local := errors.New("never was on the wire")
	assert.Equal(t, local, rpcerr.Decode(local))
}

// A pod may have named its interface so that an error about it is not UTF-8.
func TestEncodeIsAlwaysAMessage(t *testing.T) {
	for _, err := range []error{errors.New("a\xffb"), fmt.Errorf("a\xffb: %w", vnic.ErrNameTaken)} {
		st, ok := status.FromError(rpcerr.Encode(err))
		require.True(t, ok)
		b, merr := proto.Marshal(st.Proto())
		require.NoError(t, merr)
		assert.Contains(t, string(b), "a?b")
	}
}
