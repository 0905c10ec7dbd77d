package guard

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch is a subscription to what happens to the namespace's tables.
type watch struct {
	conn *netlink.Conn
	done chan struct{} // closed when its goroutine has ended
}

// startWatch restores the tables whenever someone deletes one of them: a
// service that loads its own rules begins with `flush ruleset` more often than
// not, and would leave the pods unfiltered.
func (g *Guard) startWatch() error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil) // in the calling thread's namespace
	if err == nil {
		err = errors.Join(c.SetReadBuffer(bufferBytes), c.JoinGroup(unix.NFNLGRP_NFTABLES))
	}
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	g.watch = &watch{conn: c, done: make(chan struct{})}
	go g.follow(g.watch)
	return nil
}

func (g *Guard) follow(w *watch) {
	defer close(w.done)
	for {
		msgs, err := w.conn.Receive()
		// Events that came faster than they were read may have been deletions.
		lost := errors.Is(err, unix.ENOBUFS)
		if err != nil && !lost {
			g.mu.Lock()
			defer g.mu.Unlock()
			if !g.closed {
				g.log.Warn("packet filter is watched no longer", "error", err)
			}
			return
		}
		for _, m := range msgs {
			lost = lost || deletesTable(m)
		}
		if lost {
			g.restore()
		}
	}
}

// deletesTable tells whether m is about a table of ours. The deletion that is
// part of a replacement is, too.
func deletesTable(m netlink.Message) bool {
	const family = 4 // bytes of the header before the attributes, which has the family first
	if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE || len(m.Data) < family {
		return false
	}
	f := nftables.TableFamily(m.Data[0])
	attrs, err := netlink.UnmarshalAttributes(m.Data[family:])
	if err != nil {
		return false
	}
	for _, a := range attrs {
		if a.Type != unix.NFTA_TABLE_NAME {
			continue
		}
		name := unix.ByteSliceToString(a.Data)
		return name == tableName && (f == bridgeTable.Family || f == inetTable.Family) || f == inNetdev && ofDirect(name)
	}
	return false
}

// restore makes the tables anew when one of them is missing and should not be.
func (g *Guard) restore() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.restoreDirectLocked()
	if g.emptyLocked() {
		return
	}
	whole := true
	err := g.transactLocked(func(c *nftables.Conn) error {
		for _, t := range []*nftables.Table{bridgeTable, inetTable} {
			ok, err := exists(c, t)
			if err != nil {
				return err
			}
			whole = whole && ok
		}
		return nil
	})
	if err == nil && whole {
		return
	}
	if err == nil {
		err = g.applyLocked()
	}
	g.log.Warn("packet filter was deleted by someone else", "table", tableName, "restored", err == nil, "error", err)
}

// stop ends the subscription and waits for its goroutine.
func (w *watch) stop() error {
	err := w.conn.Close()
	<-w.done
	return err
}
