package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	awaitLimit = 20 * time.Second
	// A first SYN may be lost, and the kernel sends the next one after a second.
	dialLimit = 250 * time.Millisecond
	dialPause = 20 * time.Millisecond
)

// await waits until an address answers: by refusing a connection too, unless the
// port has to be open.
func await(ctx context.Context, args []string, _ io.Writer) error {
	var to netip.AddrPort
	f := flag.NewFlagSet("await", flag.ContinueOnError)
	f.TextVar(&to, "to", netip.AddrPort{}, "the `address:port` to dial")
	open := f.Bool("open", false, "wait until it takes connections")
	if err := parse(f, args, "to"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	tick := time.NewTicker(dialPause)
	defer tick.Stop()
	for {
		err := dial(ctx, to)
		if err == nil || !*open && errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("await an answer of %s for %s: %w (last error: %w)", to, awaitLimit, ctx.Err(), err)
		}
	}
}

func dial(ctx context.Context, to netip.AddrPort) error {
	conn, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}
