package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/macro"
	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/bench/internal/rig"
	"github.com/brfuse/brfuse/internal/netload"
)

// port is that of our own server.
var port = rig.Ports[0]

// bed is a topology that is up, with our own server in it.
type bed struct {
	rig    *rig.Rig
	setup  *rig.Setup
	server *rig.Proc
}

func open(ctx context.Context, r *rig.Rig, topology string) (*bed, error) {
	s, err := r.Up(ctx, topology)
	if err != nil {
		return nil, err
	}
	b := &bed{rig: r, setup: s}
	b.server, err = s.Server.Start(ctx, s.Server.Tool("load", "serve", "--port", strconv.Itoa(int(port)), "--everywhere")...)
	if err == nil {
		_, err = s.Client.RunTool(ctx, "await", "--open", "--to", b.addr().String())
		if err != nil {
			err = fmt.Errorf("await the server: %w; it wrote: %q", err, b.server.Log())
		}
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		return nil, errors.Join(err, b.close(ctx))
	}
	return b, nil
}

func (b *bed) close(ctx context.Context) error {
	var err error
	if b.server != nil {
		err = b.server.Stop(ctx)
	}
	return errors.Join(err, b.setup.Down(ctx))
}

func (b *bed) addr() netip.AddrPort { return netip.AddrPortFrom(b.setup.Addr, port) }

// tries is how often a workload may fail: a run of half an hour isn't to end for one
// of a thousand loads.
const tries = 3

// try measures a workload, again when it has failed.
func (b *bed) try(ctx context.Context, w workload, pace *pace) (s result.Sample, err error) {
	for range tries {
		if s, err = b.measure(ctx, w); err == nil || ctx.Err() != nil {
			break
		}
		pace.Say("%s failed: %v", w.name, err)
	}
	return s, err
}

func (b *bed) measure(ctx context.Context, w workload) (result.Sample, error) {
	if w.foreign() {
		m, err := macro.Run(ctx, macro.Setup{
			Server: macro.PlaceOf(b.setup.Server), Client: macro.PlaceOf(b.setup.Client), Addr: b.setup.Addr,
		}, w.name, macro.Options{Duration: foreignTime})
		return result.Sample{Metrics: m}, err
	}
	return b.load(ctx, w.spec)
}

// load runs a load of our own and counts what it costs in the guests and on the
// hypervisors.
func (b *bed) load(ctx context.Context, spec netload.Spec) (s result.Sample, err error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return s, err
	}
	c := &counter{rig: b.rig, setup: b.setup}
	more, err := c.start(ctx)
	if err != nil {
		return s, err
	}
	out, err := b.setup.Client.RunTool(ctx, append([]string{"load", "run", "--to", b.addr().String(), "--spec", string(raw)}, more...)...)
	if err = errors.Join(err, c.stop()); err != nil {
		return s, fmt.Errorf("%w; the server wrote: %q", err, tail(b.server.Log()))
	}
	var res netload.Result
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		return s, fmt.Errorf("read the result: %w", err)
	}
	seen, err := c.seen(res)
	if err != nil {
		return s, err
	}
	return sample(res, seen)
}

// tail returns the end of what a program wrote.
func tail(s string) string {
	const most = 600
	return strings.TrimSpace(s[max(0, len(s)-most):])
}
