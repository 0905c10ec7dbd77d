package nettopo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// carrierWait bounds the wait for a link's carrier. The kernel may tell of it a second
// late (net/core/link_watch.c).
const carrierWait = 5 * time.Second

// newLink is a link of ours in the namespace of the request.
func newLink(name string) rtnl.NewLink { return rtnl.NewLink{Name: name, Group: Group} }

// pair asks for the veth pair: our end where the request goes, the other in the pod.
func (b *builder) pair() rtnl.Request {
	end, peer := newLink(vethName), newLink(b.Interface)
	end.MTU, peer.MTU = b.MTU, b.MTU
	peer.MAC, peer.Netns = MAC(b.Address.Addr()), b.pod.FD()
	return rtnl.AddVeth(end, peer)
}

func (b *builder) addVeth(context.Context) error { return b.c.Do(b.pair()) }

// routeByVeth makes our end of the pair the pod's gateway.
func (b *builder) routeByVeth(context.Context) error { return b.openGateway(vethName) }

// addBridge makes the bridge that is the pod's gateway.
func (b *builder) addBridge(context.Context) error {
	if err := b.c.Do(rtnl.AddPlainBridge(newLink(bridgeName))); err != nil {
		return err
	}
	return b.openGateway(bridgeName)
}

// openGateway gives a link the gateway's address and sets it up.
func (b *builder) openGateway(name string) error {
	return open(b.c, name, netip.PrefixFrom(b.Gateway, b.Address.Bits()))
}

// connectPod sets the pair up at both ends and gives the pod its address and, if there
// is a gateway, its default route.
func (b *builder) connectPod(ctx context.Context) error {
	if err := open(b.c, vethName, netip.Prefix{}); err != nil {
		return err
	}
	if err := b.openPod(ctx); err != nil {
		return fmt.Errorf("pod %s: %w", b.Pod, err)
	}
	return awaitRunning(ctx, b.c, vethName)
}

func (b *builder) openPod(ctx context.Context) error {
	return in(b.pod, func(c *rtnl.Conn) error {
		if err := open(c, b.Interface, b.Address); err != nil {
			return err
		}
		if err := awaitRunning(ctx, c, b.Interface); err != nil || b.Kind.overlay() {
			return err
		}
		l, err := c.Link(b.Interface)
		if err != nil {
			return err
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		return c.Do(rtnl.AddRoute(rtnl.Route{Route: vnic.Route{Destination: all, Gateway: b.Gateway}, Index: l.Index}))
	})
}

// joinBridge makes the pair's end a port. It has its carrier, so the port forwards
// at once.
func (b *builder) joinBridge(context.Context) error { return join(b.c, vethName) }

func join(c *rtnl.Conn, port string) error {
	bridge, err := c.Link(bridgeName)
	if err != nil {
		return err
	}
	l, err := c.Link(port)
	if err != nil {
		return err
	}
	return c.Do(rtnl.SetLink(l.Index, rtnl.Change{Master: bridge.Index}))
}

// open gives a link an address, if it is valid, and sets it up. The link gets no IPv6
// address of its own making: its announcements would be in the measurements.
func open(c *rtnl.Conn, name string, a netip.Prefix) error {
	l, err := c.Link(name)
	if err != nil {
		return err
	}
	reqs := []rtnl.Request{rtnl.NoAutoAddress(l.Index).Tolerate(unix.EAFNOSUPPORT)}
	if a.IsValid() {
		reqs = append(reqs, rtnl.SetAddr(l.Index, a))
	}
	if err := c.Do(append(reqs, rtnl.SetUp(l.Index))...); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return nil
}

// awaitRunning waits until the link takes packets. c is of the calling thread's
// namespace.
func awaitRunning(ctx context.Context, c *rtnl.Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, carrierWait)
	defer cancel()
	mon, err := rtnl.NewMonitor(c)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = mon.Close() }) // makes Next return
	defer func() {
		if stop() {
			_ = mon.Close()
		}
	}()
	for {
		u, err := mon.Next()
		if err != nil {
			return fmt.Errorf("await carrier of %s: %w", name, errors.Join(ctx.Err(), err))
		}
		for _, ch := range u.Changes {
			if ch.Link.Name == name && ch.Link.Flags&unix.IFF_RUNNING != 0 && !ch.Gone {
				return nil
			}
		}
	}
}
