package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
	"github.com/brfuse/brfuse/internal/netnsx"
)

// mostFlows is how many flows a server expects.
const mostFlows = 8

// load serves load or runs some.
func load(ctx context.Context, args []string, out io.Writer) error {
	v, rest, err := verb("load", args, "serve", "run")
	switch {
	case err != nil:
		return err
	case v == "serve":
		return serve(ctx, rest, out)
	}
	return generate(ctx, rest, out)
}

// serve serves until it is told to end. When it is ready, it prints its address.
func serve(ctx context.Context, args []string, out io.Writer) (err error) {
	f := flag.NewFlagSet("load serve", flag.ContinueOnError)
	port := f.Uint("port", 0, "`port` to listen on, TCP and UDP")
	cost := costFlags(f)
	if err := parse(f, args, "port"); err != nil {
		return err
	}
	if *port > 65535 {
		return fmt.Errorf("load serve: %w: port %d", errUsage, *port)
	}
	observe, err := cost.observer() //nolint:contextcheck // it bounds itself
	if err != nil {
		return err
	}
	netload.Prepare(mostFlows)
	addr := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(*port))
	s, err := netload.Listen(ctx, addr, netload.Options{Observe: observe})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := write(out, map[string]string{"ready": s.Addr().String()}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// generate runs one load and prints its result.
func generate(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("load run", flag.ContinueOnError)
	var to, tell netip.AddrPort
	f.TextVar(&to, "to", netip.AddrPort{}, "the server's `address:port`")
	f.TextVar(&tell, "tell", netip.AddrPort{}, "an `address:port` of the hypervisor to tell of the measured time")
	raw := f.String("spec", "", "a netload.Spec as `JSON`")
	cost := costFlags(f)
	if err := parse(f, args, "to", "spec"); err != nil {
		return err
	}
	var spec netload.Spec
	if err := decode(*raw, &spec); err != nil {
		return err
	}
	observe, err := cost.observer() //nolint:contextcheck // it bounds itself
	if err != nil {
		return err
	}
	if tell.IsValid() {
		t, err := dialTeller(ctx, tell)
		if err != nil {
			return err
		}
		defer t.conn.Close() // all has been said
		observe = t.around(observe)
	}
	netload.Prepare(spec.Flows)
	res, err := netload.Run(ctx, to, spec, netload.RunOptions{Observe: observe})
	if err != nil {
		return err
	}
	return write(out, res)
}

// costs say what is counted beside a load: nothing, unless something is named.
type costs struct {
	pids       string
	namespaces string
	everywhere bool
}

func costFlags(f *flag.FlagSet) *costs {
	c := &costs{}
	f.StringVar(&c.pids, "pids", "", "`processes` whose CPU time is counted, divided by commas, and that of their vhost threads")
	f.StringVar(&c.namespaces, "netns-cost", "", "`paths` of network namespaces beside this one whose devices are counted, divided by commas")
	f.BoolVar(&c.everywhere, "everywhere", false, "count the devices of all of the machine's network namespaces")
	return c
}

// observer returns nil when nothing is to be counted.
func (c *costs) observer() (netload.Observer, error) {
	if *c == (costs{}) {
		return nil, nil
	}
	o := netcost.Options{Namespaces: []string{""}}
	for s := range split(c.pids) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			return nil, fmt.Errorf("pids: %w: %w", errUsage, err)
		}
		o.PIDs, o.Vhost = append(o.PIDs, pid), true
	}
	for s := range split(c.namespaces) {
		o.Namespaces = append(o.Namespaces, s)
	}
	if c.everywhere {
		others, err := otherNamespaces()
		if err != nil {
			return nil, err
		}
		o.Namespaces = append(o.Namespaces, others...)
	}
	return netcost.Observer(o), nil
}

// otherNamespaces returns the paths of all network namespaces but this one.
func otherNamespaces() ([]string, error) {
	here, err := netnsx.Current()
	if err != nil {
		return nil, err
	}
	defer here.Close() // it was read only
	var paths []string
	for path := range netnsx.All() {
		ns, err := netnsx.Open(path)
		if err != nil {
			continue // it has gone
		}
		if ns.ID() != here.ID() {
			paths = append(paths, path)
		}
		if err := ns.Close(); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// cost counts until it is told to end, and prints what there was.
func cost(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("cost", flag.ContinueOnError)
	raw := f.String("options", "{}", "netcost.Options as `JSON`")
	d := f.Duration("for", 0, "`time` to count; default: until SIGTERM")
	if err := parse(f, args); err != nil {
		return err
	}
	var o netcost.Options
	if err := decode(*raw, &o); err != nil {
		return err
	}
	before, err := netcost.Take(ctx, o)
	if err != nil {
		return err
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if *d > 0 {
		limited, cancel = context.WithTimeout(ctx, *d)
	}
	<-limited.Done()
	cancel()
	after, err := netcost.Take(context.WithoutCancel(ctx), o)
	if err != nil {
		return err
	}
	return write(out, after.Since(before))
}

// split yields the parts of a list that is divided by commas.
func split(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s := range strings.SplitSeq(list, ",") {
			if s != "" && !yield(s) {
				return
			}
		}
	}
}
