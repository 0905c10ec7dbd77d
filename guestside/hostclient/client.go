// Package hostclient is a guest's way to ask its hypervisor's daemon for vNICs.
//
// A [Client] is given one session with the daemon after the other, as they come
// about, and makes the calls of the service Host on the one that lives. Which VM
// the calls are about is known to the daemon by the channel, so no VM is named.
package hostclient

import (
	"cmp"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
)

// Session is a session with the daemon, such as a wire.Session. Its methods are
// safe for concurrent use.
type Session interface {
	// Client calls the services of the other side.
	Client() *ttrpc.Client
	// Alive reports whether the session has not begun to end.
	Alive() bool
}

// MaxCalls is how many calls a [Client] makes at the same time; more wait for
// their turn.
const MaxCalls = 64

// Config sets up a [Client]. The zero value is ready to use.
type Config struct {
	// Grace is how long a call waits for a session, at its start, and once more
	// when its session ended before the answer. Default: 2 s.
	Grace time.Duration
	// Order bounds Attach, Detach and Publish, beside their contexts. Default: 100 s,
	// more than the daemon gives itself.
	Order time.Duration
	// Ask bounds all other calls. Default: 15 s.
	Ask time.Duration
	// Log gets calls that had to be repeated. Default: nothing is logged.
	Log *slog.Logger
}

// Client calls the daemon. Its methods are safe for concurrent use. Every call
// may be repeated with the same outcome, and repeats itself, once, when the
// session ends meanwhile.
//
// All calls return [vnic.ErrHostUnavailable] when there is no session within
// the grace, when the second session ends, too, or when no answer comes in time.
// What the daemon answers is returned in its words, and wraps the error of package
// vnic that the daemon meant.
//
// A call returns as soon as its ctx ends. The daemon is not told: it carries on,
// up to its own limits. So whoever gives up an [Client.Attach] has to call
// [Client.Detach] for the same pod and interface, with another context: that waits
// for the attach and takes it back.
type Client struct {
	cfg   Config
	slots chan struct{} // one token a call under way

	mu       sync.Mutex // guards what is below
	session  Session
	changed  chan struct{}   // closed and replaced when session changes
	notified []chan struct{} // of Notify
}

// New returns a client without a session.
func New(cfg Config) *Client {
	cfg.Grace = cmp.Or(cfg.Grace, 2*time.Second)
	cfg.Order = cmp.Or(cfg.Order, 100*time.Second)
	cfg.Ask = cmp.Or(cfg.Ask, 15*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, slots: make(chan struct{}, MaxCalls), changed: make(chan struct{})}
}

// Set gives the client the session to call in, or none when s is nil. Who makes
// sessions calls it when one has begun and when it begins to end.
func (c *Client) Set(s Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	close(c.changed)
	c.changed = make(chan struct{})
	if s == nil {
		return
	}
	for _, ch := range c.notified {
		tell(ch)
	}
}

// Notify returns a channel, for this caller alone, that holds a token when a
// session has begun since the last token was taken: what the caller knows of the
// daemon may be out of date then. It holds one at once if there is a session.
func (c *Client) Notify() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{}, 1)
	c.notified = append(c.notified, ch)
	if c.session != nil {
		tell(ch)
	}
	return ch
}

func tell(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (c *Client) current() (s Session, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session, c.changed
}
