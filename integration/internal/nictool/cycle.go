package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// report is what the rounds took.
type report struct{ Shortest, Median times }

// times are those of a round.
type times struct {
	BareAttach, BareReturn time.Duration
	Attach, Retrieve       time.Duration
	Move, Configure        time.Duration // the parts of Attach
}

// bench is one vNIC that goes to and fro.
type bench struct {
	agent        *guestside.Agent
	m            vnic.Move
	home, inside *rtnl.Conn
	homeNS, pod  *netnsx.NS
}

// callTime bounds one call of the agent.
const callTime = 30 * time.Second

func newBench(mac string) (b *bench, err error) {
	b = &bench{}
	addr, err := vnic.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	b.m = vnic.Move{
		ID: vnic.NewID(), MAC: addr, Interface: "eth0", Queues: 1,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00:1::2/64")},
		Routes: []vnic.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
			{Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd00:1::1")},
		},
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if b.agent, err = guestside.New(guestside.Config{Log: log}); err != nil {
		return nil, err
	}
	if b.homeNS, err = netnsx.Current(); err != nil {
		return nil, err
	}
	b.home, err = rtnl.Dial()
	fmt.Fprintln(os.Stderr, "ready") // for the NIC to come
	return b, err
}

// open opens the pod for the bare way.
func (b *bench) open(pod string) (err error) {
	b.m.Netns = pod
	if b.pod, err = netnsx.Open(pod); err != nil {
		return err
	}
	return b.pod.Do(func() (err error) { b.inside, err = rtnl.Dial(); return err })
}

// cycle measures n rounds, each of the bare way and of the agent's.
func cycle(mac, pod string, n int) (report, error) {
	b, err := newBench(mac)
	if err == nil {
		err = b.open(pod)
	}
	if err != nil {
		return report{}, err
	}
	var ts []times
	if _, err := b.retrieve(); err != nil {
		return report{}, err
	}
	for range n {
		var t times
		if err := errors.Join(b.bare(&t), b.agents(&t)); err != nil {
			return report{}, err
		}
		ts = append(ts, t)
	}
	return report{quantile(ts, 0), quantile(ts, 0.5)}, nil
}

// quantile returns that quantile of each time: 0 is the shortest.
func quantile(ts []times, q float64) times {
	of := func(get func(times) time.Duration) time.Duration {
		var ds []time.Duration
		for _, t := range ts {
			ds = append(ds, get(t))
		}
		slices.Sort(ds)
		return ds[int(q*float64(len(ds)))]
	}
	return times{
		BareAttach: of(func(t times) time.Duration { return t.BareAttach }),
		BareReturn: of(func(t times) time.Duration { return t.BareReturn }),
		Attach:     of(func(t times) time.Duration { return t.Attach }),
		Retrieve:   of(func(t times) time.Duration { return t.Retrieve }),
		Move:       of(func(t times) time.Duration { return t.Move }),
		Configure:  of(func(t times) time.Duration { return t.Configure }),
	}
}

// bare does the least: one message moves, renames and sets up, one gives addresses
// and routes, one moves back.
func (b *bench) bare(t *times) error {
	l, err := b.home.Link(b.m.ID.LinkName())
	if err != nil {
		return err
	}
	start := time.Now()
	err = b.home.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: b.pod.FD(), Name: "eth0", Flags: unix.IFF_UP, Mask: unix.IFF_UP}))
	if err != nil {
		return fmt.Errorf("bare move: %w", err)
	}
	var reqs []rtnl.Request
	for _, p := range b.m.Addresses {
		reqs = append(reqs, rtnl.SetAddr(l.Index, p))
	}
	for _, r := range b.m.Routes {
		reqs = append(reqs, rtnl.AddRoute(rtnl.Route{Route: r, Index: l.Index}))
	}
	if err := b.inside.Do(reqs...); err != nil {
		return fmt.Errorf("bare configure: %w", err)
	}
	t.BareAttach = time.Since(start)
	start = time.Now()
	err = b.inside.Do(rtnl.SetLink(l.Index, rtnl.Change{Netns: b.homeNS.FD(), Name: b.m.ID.LinkName()}))
	t.BareReturn = time.Since(start)
	return err
}

func (b *bench) agents(t *times) error {
	start := time.Now()
	mt, err := b.attach()
	if err != nil {
		return err
	}
	t.Attach, t.Move, t.Configure = time.Since(start), mt.Move, mt.Configure
	if t.Retrieve, err = b.retrieve(); err != nil {
		return err
	}
	_, err = b.retrieve() // waits until the first has ended, which is after its answer
	return err
}

func (b *bench) attach() (guestside.MoveTimes, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	_, t, err := b.agent.Attach(ctx, b.m)
	return t, err
}

func (b *bench) retrieve() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	start := time.Now()
	_, err := b.agent.Retrieve(ctx, b.m)
	return time.Since(start), err
}
