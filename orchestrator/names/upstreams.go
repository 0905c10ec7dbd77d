package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// errNoUpstream is returned when there is nobody to forward to.
var errNoUpstream = errors.New("no upstream name server; add one to resolv.conf")

// upstreams are whom queries are forwarded to. It is safe for concurrent use.
type upstreams struct {
	fixed   []netip.AddrPort
	file    string
	timeout time.Duration
	log     *slog.Logger

	mu     sync.Mutex // guards what follows
	info   os.FileInfo
	read   []netip.AddrPort
	failed bool                   // to read, and it was said
	self   map[netip.AddrPort]int // addresses that this server listens on
	best   netip.AddrPort         // the one to ask first
}

func newUpstreams(c Config) *upstreams {
	return &upstreams{fixed: c.Upstreams, file: c.ResolvConf, timeout: c.Timeout, log: c.Logger, self: map[netip.AddrPort]int{}}
}

// list returns the upstreams in the order to ask them.
func (u *upstreams) list() []netip.AddrPort {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.fixed
	if len(all) == 0 {
		u.reread()
		all = u.read
	}
	var list []netip.AddrPort
	for _, a := range all {
		if u.self[unmap(a)] == 0 {
			list = append(list, a)
		}
	}
	i := max(slices.Index(list, u.best), 0)
	return slices.Concat(list[i:], list[:i])
}

// reread reads resolv.conf when it changed. What can't be read leaves all as it is.
// u is locked.
func (u *upstreams) reread() {
	info, err := os.Stat(u.file)
	if err == nil && u.info != nil && os.SameFile(info, u.info) && info.ModTime().Equal(u.info.ModTime()) && info.Size() == u.info.Size() {
		return
	}
	var conf *dns.ClientConfig
	if err == nil {
		conf, err = dns.ClientConfigFromFile(u.file)
	}
	if err != nil {
		if !u.failed {
			u.log.Error("read upstream name servers", "err", err)
		}
		u.failed = true
		return
	}
	u.failed, u.info, u.read = false, info, nil
	for _, s := range conf.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			u.log.Warn("skip an upstream name server", "file", u.file, "err", err)
			continue
		}
		u.read = append(u.read, netip.AddrPortFrom(a, port))
	}
}

// listen counts (1) or forgets (-1) an address that this server listens on.
func (u *upstreams) listen(a netip.AddrPort, by int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.self[a] += by; u.self[a] == 0 {
		delete(u.self, a)
	}
}

// prefer makes a the first to ask.
func (u *upstreams) prefer(a netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.best = a
}

// ask asks one upstream after the other, and returns the answer for the client, and how
// many of them failed.
func (u *upstreams) ask(ctx context.Context, q query) (m *dns.Msg, failures int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*u.timeout)
	defer cancel()
	list := u.list()
	var errs []error
	for i, a := range list {
		m, err := u.one(ctx, a, outgoing(q))
		if err == nil {
			u.settle(list, i)
			return incoming(q, m), len(errs), nil
		}
		errs = append(errs, fmt.Errorf("ask %s: %w", a, err))
		if ctx.Err() != nil {
			u.settle(list, (i+1)%len(list))
			return nil, len(errs), errors.Join(errs...)
		}
	}
	if len(list) == 0 {
		return nil, 0, errNoUpstream
	}
	return nil, len(errs), errors.Join(errs...)
}

// settle prefers the one that answered, or is next when there is no time for it.
func (u *upstreams) settle(list []netip.AddrPort, i int) {
	if i != 0 {
		u.prefer(list[i])
	}
}
