package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// ping sends ICMP echo requests (RFC 792) from ns and awaits their replies. It
// returns the second one's round trip: the first waits for the bridges to
// notice that they have a port, and for ARP.
func ping(ctx context.Context, ns *netnsx.NS, to netip.Addr) (rtt time.Duration, err error) {
	var conn *net.IPConn
	err = ns.Do(func() (err error) { // the socket stays in the namespace
		conn, err = net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", to, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, fmt.Errorf("ping %s: %w", to, err)
		}
	}
	for seq := range byte(2) {
		if rtt, err = echo(conn, seq); err != nil {
			return 0, fmt.Errorf("ping %s: %w", to, err)
		}
	}
	return rtt, nil
}

// echo sends one request and awaits its reply.
func echo(conn *net.IPConn, seq byte) (time.Duration, error) {
	// Type 8, code 0, checksum, identifier 0, sequence number: the checksum is
	// the complement of the sum of the other words, 0x0800 + seq.
	request := []byte{8, 0, 0xf7, 0xff - seq, 0, 0, 0, seq}
	start := time.Now()
	if _, err := conn.Write(request); err != nil {
		return 0, fmt.Errorf("send echo request: %w", err)
	}
	for buf := make([]byte, 1500); ; {
		n, _, err := conn.ReadFrom(buf) // without the IP header
		if err != nil {
			return 0, fmt.Errorf("await echo reply: %w", err)
		}
		if n == len(request) && buf[0] == 0 && bytes.Equal(buf[4:n], request[4:]) {
			return time.Since(start), nil
		}
	}
}

// fetch serves a text in one namespace and reads it from the other.
func fetch(ctx context.Context, from, at *netnsx.NS, addr netip.Addr) (text string, err error) {
	var ln net.Listener
	err = at.Do(func() (err error) {
		ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("listen on %s: %w", addr, err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(ln) }()
	defer func() { err = errors.Join(err, ln.Close(), <-served) }()

	var conn net.Conn
	err = from.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", addr, err)
	}
	b, err := io.ReadAll(conn)
	return string(b), errors.Join(err, conn.Close())
}

// serve greets one client.
func serve(ln net.Listener) error {
	conn, err := ln.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil // no one came
	}
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	_, err = io.WriteString(conn, "hello from the other side")
	return errors.Join(err, conn.Close())
}
