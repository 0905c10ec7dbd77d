package rtnl

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EntryMonitor tells of changes to the neighbours and forwarding entries of one
// namespace, and which links changed. Where the kernel had to drop some news, it says so.
type EntryMonitor struct {
	*subscription
}

// EntryNews is what an [EntryMonitor] tells, in the order in which it happened.
type EntryNews struct {
	// Lost says that news are missing: anything may have changed.
	Lost    bool
	Entries []Entry
	Links   []int // indices of links that came, changed or went
}

// entryBuffer is the size of the socket's receive buffer in bytes. The kernel counts
// about 1 KiB for each piece of news.
const entryBuffer = 32 << 20

// NewEntryMonitor subscribes to the calling thread's namespace. The subscription is in
// force when it returns.
func NewEntryMonitor() (*EntryMonitor, error) {
	s, err := subscribe("neighbours", entryBuffer, unix.RTNLGRP_NEIGH, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, err
	}
	return &EntryMonitor{s}, nil
}

// Next waits for news and returns them. It is called by one goroutine. After
// [EntryMonitor.Close] the error is [os.ErrClosed].
func (m *EntryMonitor) Next() (EntryNews, error) {
	n, err := m.receive()
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, errTruncated) {
		return EntryNews{Lost: true}, nil
	}
	if err != nil {
		return EntryNews{}, err
	}
	return parseNews(m.buf[:n])
}

// parseNews reads one datagram of news.
func parseNews(b []byte) (EntryNews, error) {
	var news EntryNews
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return news, fmt.Errorf("parse neighbour events: %w", err)
	}
	for _, m := range msgs {
		switch kind := m.Header.Type; kind {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			e, err := parseEntry(m.Data)
			if err != nil {
				return news, err
			}
			e.Gone = kind == unix.RTM_DELNEIGH
			news.Entries = append(news.Entries, e)
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if len(m.Data) >= unix.SizeofIfInfomsg {
				news.Links = append(news.Links, int(nl.DeserializeIfInfomsg(m.Data).Index))
			}
		}
	}
	return news, nil
}
