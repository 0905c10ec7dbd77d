package cli_test

import (
	"context"
	"errors"
	"sync"

	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/internal/netpath"
	"github.com/brfuse/brfuse/vnic"
)

// looks counts how often the prober was asked for a guest's path: its counters grow.
var looks struct {
	sync.Mutex
	n uint64
}

// GuestPath tells of one device, by which 100 packets go, and 3 are dropped, from one
// second to the next.
func (prober) GuestPath(_ context.Context, q daemon.PathQuery) (*netpath.Path, error) {
	if q.Netns == "nope" {
		return nil, vnic.ErrUnknownPod
	}
	looks.Lock()
	defer looks.Unlock()
	looks.n++
	return &netpath.Path{
		Taken: int64(looks.n) * 1e9, Namespaces: []netpath.Namespace{{Name: q.Netns}}, End: "the wire is behind it",
		Hops: []netpath.Hop{{Device: &netpath.Device{
			Name: q.Interface, Kind: "nic", MTU: 1500, Up: true, Carrier: true,
			TX: netpath.Count{Packets: 100 * looks.n, Bytes: 6400 * looks.n, Drops: 3 * looks.n},
		}}},
	}, nil
}

func (prober) HostPath(context.Context, daemon.PathQuery, vnic.Attachment, *netpath.Path) (*netpath.Path, error) {
	return nil, errors.New("which tap is not known")
}
