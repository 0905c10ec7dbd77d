package netpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Options say where a walk begins and where to.
type Options struct {
	// Namespace is the pod's, as [netnsx.Open] takes it. Default: the calling
	// thread's.
	Namespace string
	// Interface is the device to begin with. Default: eth0.
	Interface string
	// To is the destination. Default: where the default route leads to.
	To netip.Addr
	// Arriving: packets come in by Interface, as they do by a tap of the hypervisor,
	// instead of leaving by it.
	Arriving bool
	// Gateway is the one that an arriving packet is for. Default: any address of the
	// bridge that it comes to; with a destination, that is a neighbour then.
	Gateway netip.Addr
	// Port is that of the bridge which an arriving packet comes to first, and which its
	// destination, a neighbour, is behind. Default: one that leads on.
	Port string
}

// ErrNoInterface is returned when a namespace has no interface of that name. It is an
// [vnic.ErrInvalid].
var ErrNoInterface = fmt.Errorf("%w: no interface", vnic.ErrInvalid)

// Limits of a walk.
const (
	maxHops       = 64
	maxNamespaces = 16
	maxQdiscs     = 64               // of a device
	limit         = 20 * time.Second // if ctx has no end
)

// Local walks the path of a packet on this machine. It takes CAP_NET_ADMIN and
// CAP_SYS_ADMIN. It is an [vnic.ErrUnknownPod] when there is no such namespace, and
// an [ErrNoInterface] when there is no such interface in it. What can't be
// followed ends the path with its reason in [Path.End], and is no error.
func Local(ctx context.Context, o Options) (p Path, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("no path within %s: %w", limit, context.DeadlineExceeded))
		defer cancel()
	}
	o.Interface = cmp.Or(o.Interface, "eth0")
	w := &walk{o: o, gateway: o.Gateway, seen: map[place]bool{}}
	defer func() {
		if cerr := w.close(); err == nil {
			err = cerr
		}
	}()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return p, fmt.Errorf("read clock: %w", err)
	}
	w.path.Taken = now.Nano()
	if err := w.start(ctx); err != nil {
		return p, err
	}
	err = clean(reflect.ValueOf(&w.path).Elem())
	return w.path, err
}

// start opens the first namespaces and walks.
func (w *walk) start(ctx context.Context) error {
	own, err := netnsx.Current()
	if err != nil {
		return err
	}
	w.own = own
	v, err := w.first(ctx)
	if err != nil {
		return err
	}
	var l rtnl.PathLink
	err = v.conn.Do(rtnl.GetPathLinkName(&l, w.o.Interface))
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w %s in namespace %s; name another by --ifname", ErrNoInterface, w.o.Interface, w.path.Namespaces[v.index].Name)
	}
	if err != nil {
		return err
	}
	if w.o.Arriving {
		w.onLink = w.o.To.IsValid() && !w.o.Gateway.IsValid()
		return w.arrive(ctx, v, l)
	}
	w.route(v, l)
	w.ended(v)
	return w.leave(ctx, v, l)
}

// first opens the namespace that the walk begins in.
func (w *walk) first(ctx context.Context) (*view, error) {
	var ns *netnsx.NS
	var err error
	if w.o.Namespace == "" {
		ns, err = netnsx.Current()
	} else {
		ns, err = netnsx.Open(w.o.Namespace)
	}
	if err != nil {
		return nil, err
	}
	return w.open(ctx, ns, cmp.Or(w.o.Namespace, self))
}
