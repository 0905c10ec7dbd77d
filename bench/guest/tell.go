package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/bench/internal/window"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/netnsx"
)

// tellLimit bounds a word and its answer.
const tellLimit = 10 * time.Second

// teller tells the hypervisor when the measured time begins and ends, so that it
// counts for just that time. It speaks by the guest's own NIC, also out of a pod.
type teller struct {
	conn net.Conn
	in   *bufio.Reader
	err  error // the first one; the hypervisor misses the word
}

func dialTeller(ctx context.Context, to netip.AddrPort) (t *teller, err error) {
	first, err := netnsx.Open("1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	t = &teller{}
	// The address is one: no goroutine of the dialer's is needed, and the calling
	// thread makes the socket.
	err = first.Do(func() (err error) { t.conn, err = new(net.Dialer).DialContext(ctx, "tcp", to.String()); return err })
	if err != nil {
		return nil, fmt.Errorf("call the hypervisor: %w", err)
	}
	t.in = bufio.NewReader(t.conn)
	return t, nil
}

// say says a word and waits for the answer.
func (t *teller) say(word string) {
	if t.err != nil {
		return
	}
	if t.err = t.conn.SetDeadline(time.Now().Add(tellLimit)); t.err != nil {
		return
	}
	if _, t.err = t.conn.Write([]byte(word + "\n")); t.err == nil {
		_, t.err = t.in.ReadString('\n')
	}
}

// around has the words said within what is observed here: to read this guest's counters
// takes its CPU time, which the hypervisor isn't to count. While a word is said the
// guest is idle.
func (t *teller) around(observe netload.Observer) netload.Observer {
	return func() func() json.RawMessage {
		stop := func() json.RawMessage { return nil }
		if observe != nil {
			stop = observe()
		}
		t.say(window.Begin)
		return func() json.RawMessage {
			t.say(window.End)
			return stop()
		}
	}
}
