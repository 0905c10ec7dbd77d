// Package reserve keeps ports of the host for pods: a socket that is bound to a
// port, and neither listens nor receives, keeps other programs from taking it,
// and tells when one has it already.
package reserve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/brfuse/brfuse/vnic"
)

// Port is a port of the host, on one address or, by the unspecified one, on all
// of a family.
type Port struct {
	Protocol string // as in [vnic.PortMapping]
	Address  netip.AddrPort
}

// String returns "ADDRESS:PORT/PROTOCOL".
func (p Port) String() string { return p.Address.String() + "/" + p.Protocol }

func (p Port) overlaps(o Port) bool {
	a, b := p.Address.Addr(), o.Address.Addr()
	return p.Protocol == o.Protocol && p.Address.Port() == o.Address.Port() && a.Is4() == b.Is4() &&
		(a == b || a.IsUnspecified() || b.IsUnspecified())
}

// Ports are the ports that are kept. It is safe for concurrent use.
type Ports struct {
	log    *slog.Logger
	inside func(context.Context, func() error) error

	mu     sync.Mutex // guards what follows, and the order of changes
	owners map[string]map[Port]int
}

// unbound stands for the socket of a port that is in force and that someone
// else took while no daemon kept it.
const unbound = -1

// New returns an empty Ports. Sockets are made by functions that are handed to
// inside, which runs them in the host's network namespace.
func New(log *slog.Logger, inside func(context.Context, func() error) error) *Ports {
	return &Ports{log: log, inside: inside, owners: map[string]map[Port]int{}}
}

// Set keeps want for an owner. What the owner has beside it stays kept until
// commit is called, which lets go of it; cancel makes everything as before.
// Exactly one of the two is called, and no other Set for the owner meanwhile.
//
// A port that another owner or program has is a [vnic.ErrPortTaken], and an
// address that the host doesn't have a [vnic.ErrInvalid]; then nothing has
// changed. Of the ports in inForce, of which the kernel's rules are there
// already, that only makes a log entry, and the next Set tries again.
func (p *Ports) Set(ctx context.Context, owner string, want, inForce []Port) (commit, cancel func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.checkLocked(owner, want); err != nil {
		return nil, nil, err
	}
	before := maps.Clone(p.owners[owner])
	opened, err := p.openLocked(ctx, owner, want, inForce)
	if err != nil {
		return nil, nil, err
	}
	p.replaceLocked(owner, func(now map[Port]int) { maps.Copy(now, opened) })
	commit = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.replaceLocked(owner, func(now map[Port]int) {
			for port, fd := range now {
				if !slices.Contains(want, port) {
					closeSocket(fd)
					delete(now, port)
				}
			}
		})
	}
	cancel = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		closeAll(opened)
		p.restoreLocked(context.WithoutCancel(ctx), owner, before)
	}
	return commit, cancel, nil
}

// openLocked binds those of want that the owner doesn't have. A port of the owner's
// own that is in the way, such as one on all addresses in that of one address,
// makes room.
func (p *Ports) openLocked(ctx context.Context, owner string, want, inForce []Port) (map[Port]int, error) {
	before := maps.Clone(p.owners[owner])
	opened := map[Port]int{}
	err := p.inside(ctx, func() error {
		for _, port := range want {
			if fd, ok := p.owners[owner][port]; ok && fd != unbound {
				continue
			}
			p.makeRoomLocked(owner, port)
			fd, err := bind(port)
			if err != nil && slices.Contains(inForce, port) {
				p.log.Warn("keep port of the host", "owner", owner, "error", err)
				fd, err = unbound, nil
			}
			if err != nil {
				return err
			}
			opened[port] = fd
		}
		return nil
	})
	if err != nil {
		closeAll(opened)
		p.restoreLocked(context.WithoutCancel(ctx), owner, before)
		return nil, err
	}
	return opened, nil
}

func (p *Ports) makeRoomLocked(owner string, port Port) {
	for own, fd := range p.owners[owner] {
		if own != port && own.overlaps(port) {
			closeSocket(fd)
			p.owners[owner][own] = unbound
		}
	}
}

// restoreLocked gives an owner what it had before; what made room meanwhile is
// bound again.
func (p *Ports) restoreLocked(ctx context.Context, owner string, before map[Port]int) {
	for port, fd := range before {
		if fd == unbound || p.owners[owner][port] == fd {
			continue
		}
		before[port] = unbound
		err := p.inside(ctx, func() (err error) {
			before[port], err = bind(port)
			return err
		})
		if err != nil {
			p.log.Warn("keep port of the host again", "owner", owner, "error", err)
		}
	}
	p.replaceLocked(owner, func(now map[Port]int) {
		clear(now)
		maps.Copy(now, before)
	})
}

// replaceLocked changes what an owner has.
func (p *Ports) replaceLocked(owner string, change func(map[Port]int)) {
	now := p.owners[owner]
	if now == nil {
		now = map[Port]int{}
	}
	change(now)
	if p.owners[owner] = now; len(now) == 0 {
		delete(p.owners, owner)
	}
}

func (p *Ports) checkLocked(owner string, want []Port) error {
	for other, ports := range p.owners {
		if other == owner {
			continue
		}
		for port := range ports {
			for _, w := range want {
				if w.overlaps(port) {
					return taken(w, "is published for "+other+"; choose another")
				}
			}
		}
	}
	return nil
}

// Release lets go of all that an owner has.
func (p *Ports) Release(owner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeAll(p.owners[owner])
	delete(p.owners, owner)
}

// Close lets go of everything.
func (p *Ports) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ports := range p.owners {
		closeAll(ports)
	}
	clear(p.owners)
}

func closeAll(sockets map[Port]int) {
	for _, fd := range sockets {
		closeSocket(fd)
	}
}

func taken(p Port, why string) error {
	return &vnic.TakenError{What: "port " + p.String(), Why: why, Err: vnic.ErrPortTaken}
}

// explain gives the errors of bind a name and a remedy.
func explain(p Port, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errInUse):
		return taken(p, fmt.Sprintf("is another program's; choose another, or see whose by `ss -lntup sport = :%d`", p.Address.Port()))
	case errors.Is(err, errNoAddress):
		return fmt.Errorf("port %s: the hypervisor has no address %s: %w: see `ip address`", p, p.Address.Addr(), vnic.ErrInvalid)
	case errors.Is(err, errNotAllowed):
		return fmt.Errorf("port %s: %w: the daemon needs the capability CAP_NET_BIND_SERVICE for it", p, err)
	}
	return fmt.Errorf("port %s: %w", p, err)
}
