package libvirtvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// callLimit bounds one call of libvirtd, whoever waits for it. One that takes
// longer is taken for dead: go-libvirt can't give up a call but by its connection.
const callLimit = 30 * time.Second

// client is one connection to libvirtd, about one domain. It is safe for
// concurrent use.
type client struct {
	lv     *libvirt.Libvirt
	nc     *watchedConn
	domain libvirt.Domain // as it was when the connection was made

	mu     sync.Mutex     // held to set closed, and to look at it before wg grows
	closed bool           // guarded by mu
	wg     sync.WaitGroup // calls, and readers of events

	// life ends with close. It is the connection's own and belongs to no call:
	// go-libvirt sends events until then.
	life context.Context
	stop context.CancelFunc
}

// watchedConn tells when its peer has gone.
type watchedConn struct {
	net.Conn
	once sync.Once
	lost chan struct{} // closed when nothing comes any more
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.once.Do(func() { close(w.lost) })
	}
	return n, err
}

// Dial implements go-libvirt's Dialer: the connection is there.
func (w *watchedConn) Dial() (net.Conn, error) { return w, nil }

// dial connects to libvirtd, about no domain yet.
func dial(ctx context.Context, where address) (*client, error) {
	socket, uri := where.socket(), libvirt.ConnectURI(where.uri())
	nc, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, &outageError{socket, err}
	}
	c := &client{nc: &watchedConn{Conn: nc, lost: make(chan struct{})}}
	c.life, c.stop = context.WithCancel(context.Background())
	c.lv = libvirt.NewWithDialer(c.nc)
	if err := c.call(ctx, func() error { return c.lv.ConnectToURI(uri) }); err != nil {
		c.close()
		return nil, &outageError{socket, err}
	}
	return c, nil
}

// connect dials libvirtd and finds the running domain. Each of its events goes to
// handle, one after the other; that must not wait.
func connect(ctx context.Context, where address, handle func(any), log *slog.Logger) (*client, error) {
	c, err := dial(ctx, where)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, func() error { return c.subscribe(handle, log) })
	if err != nil {
		err = fmt.Errorf("follow libvirt's events: %w", err)
	} else {
		err = c.find(ctx, where.Name)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// find looks the domain up. The error is an errStopped when it doesn't run.
func (c *client) find(ctx context.Context, name string) error {
	err := c.call(ctx, func() (err error) {
		c.domain, err = c.lv.DomainLookupByName(name)
		return err
	})
	switch {
	case libvirt.IsNotFound(err):
		return fmt.Errorf("libvirt has no domain %s, see `virsh list --all`: %w", name, errStopped)
	case err != nil:
		return fmt.Errorf("look up domain %s: %w", name, err)
	case c.domain.ID == shutOff:
		return fmt.Errorf("domain %s is shut off, start it by `virsh start %s`: %w", name, name, errStopped)
	}
	return nil
}

// shutOff is the number of a domain that doesn't run.
const shutOff = -1

// subscribe asks for the events that matter. libvirt sends those of all domains.
func (c *client) subscribe(handle func(any), log *slog.Logger) error {
	var one sync.Mutex // events come one after the other
	for _, id := range []libvirt.DomainEventID{
		libvirt.DomainEventIDLifecycle, libvirt.DomainEventIDDeviceRemoved, libvirt.DomainEventIDDeviceRemovalFailed,
	} {
		events, err := c.lv.SubscribeEvents(c.life, id, nil)
		if err != nil {
			return err
		}
		c.wg.Go(func() {
			for e := range events { // to its end, or go-libvirt stops
				log.Debug("libvirt event", "event", e)
				one.Lock()
				handle(e)
				one.Unlock()
			}
		})
	}
	return nil
}

// call runs f, a call of libvirtd, and returns its error, or ctx's when that ends
// first: then f goes on, for [callLimit] in all.
func (c *client) call(ctx context.Context, f func() error) error {
	return c.start(f).wait(ctx)
}

// pending is a call under way.
type pending struct {
	done chan struct{}
	err  error // valid when done is closed
}

func (c *client) start(f func() error) *pending {
	p := &pending{done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		p.err = net.ErrClosed
		close(p.done)
		return p
	}
	c.wg.Go(func() {
		defer close(p.done)
		limit := time.AfterFunc(callLimit, c.drop)
		defer limit.Stop()
		p.err = f()
	})
	return p
}

func (p *pending) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("await libvirtd's answer: %w", context.Cause(ctx))
	}
}

// drop ends the connection; calls under way fail.
func (c *client) drop() { _ = c.nc.Close() } // of a socket that is given up

// close ends the connection and waits for its goroutines. The domain goes on.
func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.drop()
	c.wg.Wait()
}

// lost tells that an error means the end of the connection, and nothing about
// what became of the call.
func (c *client) lost(err error) bool {
	if err == nil {
		return false
	}
	if _, refused := errors.AsType[libvirt.Error](err); refused {
		return false
	}
	select {
	case <-c.nc.lost:
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	default:
	}
	return errors.Is(err, libvirt.ErrInterrupted) || errors.Is(err, syscall.EINVAL) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE)
}
