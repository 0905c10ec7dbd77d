package main

import (
	"fmt"
	"io"
	"time"
)

// What things take beside the measured time, under emulation on an idle machine.
// They only say how the parts of a run compare.
const (
	bootCost     = 10 * time.Second
	topologyCost = 500 * time.Millisecond
	guestCost    = 300 * time.Millisecond // of a topology, for each guest
	loadCost     = 150 * time.Millisecond
	foreignCost  = 1200 * time.Millisecond
)

// pace tells how a run gets on, and when it is to end. It isn't safe for concurrent
// use.
type pace struct {
	out         io.Writer
	began       time.Time
	done, whole time.Duration // by the costs above
}

func newPace(out io.Writer, plans []plan) *pace {
	p := &pace{out: out, began: time.Now()}
	for _, pl := range plans {
		p.whole += pl.boot()
		for round := range pl.rounds + 1 {
			p.whole += time.Duration(len(pl.topologies)) * pl.visit(round)
		}
	}
	return p
}

func (p plan) boot() time.Duration {
	if p.pair() {
		return 2 * bootCost
	}
	return bootCost
}

// visit is what a topology takes in a round.
func (p plan) visit(round int) time.Duration {
	d := topologyCost + guestCost
	if p.pair() {
		d += guestCost
	}
	for _, w := range p.workloads {
		switch {
		case !w.in(round):
		case w.foreign():
			d += foreignTime + foreignCost
		default:
			d += w.spec.WarmUp + w.spec.Duration + loadCost
		}
	}
	return d
}

// Say prints what happens now.
func (p *pace) Say(format string, args ...any) {
	now := time.Since(p.began)
	line := fmt.Sprintf(format, args...)
	if p.done == 0 {
		fmt.Fprintf(p.out, "%7s  %s; it takes about %s\n", round(now), line, round(p.whole))
		return
	}
	whole := now + time.Duration(float64(now)/float64(p.done)*float64(p.whole-p.done))
	fmt.Fprintf(p.out, "%7s of about %s  %s\n", round(now), round(whole), line)
}

// Did notes that something is done.
func (p *pace) Did(cost time.Duration) { p.done += cost }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
