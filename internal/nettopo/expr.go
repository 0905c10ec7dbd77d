package nettopo

import (
	"net"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reg is the register that all expressions use.
const reg = 1

// match is a part of a rule: one condition or action.
type match []expr.Any

func verdict(k expr.VerdictKind) match { return match{&expr.Verdict{Kind: k}} }

// by matches the interface that a packet came in by or goes out by.
func by(key expr.MetaKey, name string, op expr.CmpOp) match {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return match{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: padded}}
}

// toSelf matches what is for an address of this namespace.
func toSelf() match {
	return match{
		&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// to matches a destination.
func to(a netip.Addr) match {
	return match{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: a.AsSlice()},
	}
}

// fromNetwork matches a source in p's network.
func fromNetwork(p netip.Prefix) match {
	return match{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: p.Masked().Addr().AsSlice()},
	}
}

// answers matches packets of tracked connections, and errors about them.
func answers() match {
	return match{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}
