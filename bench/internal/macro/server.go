package macro

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	pollEvery   = 50 * time.Millisecond
	listenLimit = 20 * time.Second // for a server to come up
	stopLimit   = 15 * time.Second
)

// States of /proc/net/tcp and udp (TCP_LISTEN and TCP_CLOSE of the kernel).
const (
	stateListen = "0A"
	stateClose  = "07" // of a UDP socket that isn't connected
)

// serve starts the server and returns when it takes connections.
func serve(ctx context.Context, p Place, l load, o Options) (Proc, error) {
	ctx, cancel := context.WithTimeout(ctx, listenLimit)
	defer cancel()
	argv := l.server(o)
	there, err := listening(ctx, p, l)
	if err == nil && there {
		err = fmt.Errorf("port %d is taken: end what listens there", l.port)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	server, err := p.Start(ctx, argv...)
	if err != nil {
		return nil, err
	}
	if err := awaitListening(ctx, p, l); err != nil {
		err = fmt.Errorf("wait for %s on port %d: %w; it wrote: %q", argv[0], l.port, err, tail(server.Log()))
		return nil, errors.Join(err, stop(ctx, server))
	}
	return server, nil
}

// stop ends a server also when ctx has ended.
func stop(ctx context.Context, server Proc) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	return server.Stop(ctx)
}

func awaitListening(ctx context.Context, p Place, l load) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		there, err := listening(ctx, p, l)
		if there || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listening looks whether a socket takes what comes to the port. The kernel's table
// tells it; to connect would be taken for a client by servers that serve one at a time.
func listening(ctx context.Context, p Place, l load) (bool, error) {
	table, state := "tcp", stateListen
	if l.udp {
		table, state = "udp", stateClose
	}
	res, err := p.Run(ctx, "cat", "/proc/net/"+table, "/proc/net/"+table+"6")
	if err != nil {
		return false, fmt.Errorf("look for sockets: %w", err)
	}
	// Without IPv6 there is no second file, and cat says so.
	return hasSocket(res.Stdout, l.port, state), nil
}

// hasSocket looks for a socket of that local port and state in /proc/net/tcp or udp.
func hasSocket(table string, port uint16, state string) bool {
	const local, st = 1, 3
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) <= st || f[st] != state {
			continue
		}
		_, hex, _ := strings.Cut(f[local], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
			return true
		}
	}
	return false
}
