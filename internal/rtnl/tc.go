package rtnl

import (
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Shape is how fast a link sends: a token bucket filter.
type Shape struct {
	Rate  uint64 // bytes per second
	Burst uint32 // bytes that are sent at once beyond it, at least one frame
	Queue uint32 // bytes that may wait
}

const (
	kindTBF = "tbf"
	// shapeHandle tells our queueing discipline from those that others put there.
	shapeHandle = 0xbf << 16
	ethernet    = 1 // TC_LINKLAYER_ETHERNET
)

// SetShape asks that a link sends as s says, in place of whatever its root
// queueing discipline is. What waits in an earlier one of ours goes on waiting.
func SetShape(link HostLink, s Shape) Request {
	opt := nl.TcTbfQopt{Limit: s.Queue}
	opt.Rate.Linklayer = ethernet
	opt.Rate.Rate = uint32(min(s.Rate, math.MaxUint32))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, opt.Serialize())
	options.AddRtAttr(nl.TCA_TBF_BURST, nl.Uint32Attr(s.Burst))
	if s.Rate > math.MaxUint32 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(s.Rate))
	}
	return newRequest(fmt.Sprintf("limit what link %s sends to %d bytes per second", link.Name, s.Rate),
		unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, rootOf(link.Index, shapeHandle),
		nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindTBF)), options)
}

// ClearShape asks to take back what [SetShape] did. Where there is nothing of
// it, that is no error.
func ClearShape(link HostLink) Request {
	return newRequest(fmt.Sprintf("take the limit of what it sends from link %s", link.Name),
		unix.RTM_DELQDISC, 0, rootOf(link.Index, shapeHandle)).
		Tolerate(unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP) // none, one with another handle, or a kernel without any
}

// ProbeShape asks for a discipline without its parameters, which no kernel
// makes: one that has token bucket filters says [unix.EINVAL], which is
// tolerated, and one that doesn't, [unix.ENOENT].
func ProbeShape(link HostLink) Request {
	return newRequest("look for the token bucket filter", unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		rootOf(link.Index, shapeHandle), nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindTBF))).Tolerate(unix.EINVAL)
}

func rootOf(index int, handle uint32) *nl.TcMsg {
	return &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: handle, Parent: netlink.HANDLE_ROOT}
}
