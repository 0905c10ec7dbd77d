package rtnl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// GoneWatch tells when links are deleted. It is safe for concurrent use.
type GoneWatch struct {
	handle *Handle
	socket *nl.NetlinkSocket
	stop   chan struct{} // closed by Close
	done   chan struct{} // closed when nothing is read any more

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every deletion
}

// WatchGone subscribes to the deletions of links. It must be called in the
// network namespace that h belongs to.
func (h *Handle) WatchGone() (*GoneWatch, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("subscribe to link events: %w", err)
	}
	w := &GoneWatch{handle: h, socket: s, stop: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{})}
	go w.read()
	return w, nil
}

func (w *GoneWatch) read() {
	defer close(w.done)
	for {
		msgs, _, err := w.socket.Receive()
		select {
		case <-w.stop:
			return
		default:
		}
		lost := errors.Is(err, unix.ENOBUFS) // events came faster than they were read
		if err != nil && !lost {
			return
		}
		if lost || hasDeletion(msgs) {
			w.mu.Lock()
			close(w.changed)
			w.changed = make(chan struct{})
			w.mu.Unlock()
		}
	}
}

func hasDeletion(msgs []syscall.NetlinkMessage) bool {
	for _, m := range msgs {
		if m.Header.Type == unix.RTM_DELLINK {
			return true
		}
	}
	return false
}

// Wait returns when there is no link of that name, or with ctx's error.
func (w *GoneWatch) Wait(ctx context.Context, name string) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if _, err := w.handle.HostLink(name); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-w.done:
			return fmt.Errorf("await the end of link %s: %w", name, os.ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("await the end of link %s: %w", name, ctx.Err())
		}
	}
}

// Close ends the subscription. Waiters return with [os.ErrClosed].
func (w *GoneWatch) Close() {
	close(w.stop)
	w.socket.Close()
	<-w.done
}
