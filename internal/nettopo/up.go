package nettopo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// undoTimeout bounds the removal of what a failed [Up] made.
const undoTimeout = 10 * time.Second

// Up builds the topology in the network namespace of the calling thread. When it
// returns, packets flow. When it fails, what it made is gone again.
//
// Where there is a topology already, or a rest of one, the error is [fs.ErrExist] and
// nothing is changed: call [Down] first. Other errors are [vnic.ErrInvalid] for a bad
// spec, [vnic.ErrUnknownPod], [fs.ErrNotExist] for a missing uplink and
// [vnic.ErrUnsupported] where the kernel lacks something. It waits at most for the links' carrier,
// and no longer than ctx allows. Of two concurrent calls in a namespace at most one succeeds.
func Up(ctx context.Context, s Spec) error {
	if err := s.Check(); err != nil {
		return err
	}
	err := inside(s, func(b *builder) error {
		if err := b.vacant(); err != nil {
			return err
		}
		return b.build(ctx)
	})
	if err != nil {
		return fmt.Errorf("build topology %s: %w", s.Kind, err)
	}
	return nil
}

// builder has what the steps of building a topology share.
type builder struct {
	Spec
	c      *rtnl.Conn // of the first namespace
	first  *netnsx.NS
	pod    *netnsx.NS // nil for overlay-linux
	uplink rtnl.Link
}

// inside calls f with a builder whose parts are open.
func inside(s Spec, f func(*builder) error) (err error) {
	b := &builder{Spec: s}
	b.Interface = s.podInterface()
	if b.first, err = netnsx.Current(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.first.Close()) }()
	if s.Kind != OverlayLinux {
		if b.pod, err = netnsx.Open(s.Pod); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.pod.Close()) }()
		if b.pod.ID() == b.first.ID() {
			return invalid("pod %s is the namespace that the topology is built in", s.Pod)
		}
	}
	if b.c, err = rtnl.Dial(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.c.Close()) }()
	if b.uplink, err = b.c.Link(s.Uplink); err != nil {
		return fmt.Errorf("uplink %s: %w; name a link of this namespace", s.Uplink, err)
	}
	if b.MTU == 0 {
		b.MTU = b.defaultMTU()
	}
	return f(b)
}

func (b *builder) defaultMTU() int {
	mtu := min(b.uplink.MTU, maxMTU)
	if b.Kind.overlay() {
		mtu -= overhead
	}
	return mtu
}

// step is one thing that is made. The first of a topology makes one thing or nothing.
type step func(context.Context) error

func (b *builder) steps() []step {
	switch b.Kind {
	case Veth:
		return []step{b.addVeth, b.routeByVeth, b.connectPod, b.forward}
	case Bridged:
		return []step{b.addVeth, b.addBridge, b.connectPod, b.joinBridge, b.forward}
	case NAT:
		return []step{b.addVeth, b.addBridge, b.connectPod, b.joinBridge, b.translate, b.forward}
	case OverlayLinux:
		return []step{b.addVXLAN, b.leadToRemote, b.openVXLAN}
	default:
		return []step{b.addNetns, b.addVXLAN, b.leadToRemote, b.nest}
	}
}

func (b *builder) build(ctx context.Context) error {
	for i, do := range b.steps() {
		err := ctx.Err()
		if err == nil {
			err = do(ctx)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: %w; load the kernel modules %v", vnic.ErrUnsupported, err, Modules())
		}
		if i == 0 { // nothing of ours is there, but maybe another call's
			return err
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return errors.Join(err, remove(undo, b.Spec))
	}
	return nil
}

// vacant returns an [fs.ErrExist] where something is in the way.
func (b *builder) vacant() error {
	links, err := b.c.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name != vethName && l.Name != bridgeName && l.Name != vxlanName {
			continue
		}
		if ours(l) {
			return fmt.Errorf("link %s of a topology: %w; take that topology down first", l.Name, fs.ErrExist)
		}
		return fmt.Errorf("link %s, which is not of a topology: %w; rename or delete it", l.Name, fs.ErrExist)
	}
	if found, err := hasTable(); !errors.Is(err, vnic.ErrUnsupported) && (err != nil || found) {
		return errors.Join(err, exists(found, "nftables table "+tableName+" of a topology", "take that topology down first"))
	}
	if found, err := netnsx.Exists(overlayNetns(b.first)); err != nil || found {
		return errors.Join(err, exists(found, "network namespace "+overlayNetns(b.first)+" of a topology", "take that topology down first"))
	}
	return b.podVacant()
}

// podVacant returns an [fs.ErrExist] where the pod has such an interface, or a default
// route when it is to get one.
func (b *builder) podVacant() error {
	if b.pod == nil {
		return nil
	}
	return in(b.pod, func(c *rtnl.Conn) error {
		var routes []rtnl.Route
		switch _, err := c.Link(b.Interface); {
		case err == nil:
			return exists(true, "interface "+b.Interface+" of pod "+b.Pod, "choose another")
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := c.Do(rtnl.GetRoutes(&routes)); err != nil {
			return err
		}
		for _, r := range routes {
			if !b.Kind.overlay() && r.Destination.Bits() == 0 && r.Destination.Addr().Is4() {
				return exists(true, "default route of pod "+b.Pod, "choose a pod without")
			}
		}
		return nil
	})
}

func exists(found bool, what, remedy string) error {
	if !found {
		return nil
	}
	return fmt.Errorf("%s: %w; %s", what, fs.ErrExist, remedy)
}

// in runs f in a namespace with a connection to it.
func in(ns *netnsx.NS, f func(*rtnl.Conn) error) error {
	return ns.Do(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		return errors.Join(f(c), c.Close())
	})
}
