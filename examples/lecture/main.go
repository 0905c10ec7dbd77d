// Command lecture builds what brfuse does without: two network namespaces that
// are joined by a bridge in each of them and a veth pair between the bridges,
// made by netlink calls alone. It connects across, shows which devices a packet
// has to cross, and takes everything down again.
//
// Run it as root:
//
//	go run ./examples/lecture
//
// With brfuse a pod has one device, the virtio NIC that the hypervisor plugged
// for it, and none of these.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/brfuse/brfuse/internal/netnsx"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lecture:", err)
		os.Exit(1)
	}
}

// run builds, tries and shows the scenario.
func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	left, err := netnsx.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, left.Close()) }() // and with it all that is in it
	right, err := netnsx.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, right.Close()) }()

	l := side{"left", left, netip.MustParsePrefix("10.200.0.1/24")}
	r := side{"right", right, netip.MustParsePrefix("10.200.0.2/24")}
	if err := join(l, r); err != nil {
		return err
	}
	fmt.Fprintf(out, "built:  %s\n        %s\n", l, r)

	rtt, err := ping(ctx, l.ns, r.prefix.Addr())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ping:   %s -> %s in %s\n", l.prefix.Addr(), r.prefix.Addr(), rtt.Round(time.Microsecond))
	text, err := fetch(ctx, l.ns, r.ns, r.prefix.Addr())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "tcp:    %s -> %s: %q\n", l.prefix.Addr(), r.prefix.Addr(), text)

	there, err := path(l.ns)
	if err != nil {
		return err
	}
	back, err := path(r.ns)
	if err != nil {
		return err
	}
	slices.Reverse(back)
	devices := slices.Concat(there, back)
	fmt.Fprintf(out, "path:   %s: %d devices each way; with brfuse: 1\n", strings.Join(devices, " > "), len(devices))
	return nil
}
