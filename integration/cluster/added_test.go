package cluster

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationClusterAdded has a hypervisor join that nobody knew, with a guest, while
// two others exchange traffic, and leave again. No packet of theirs is lost meanwhile,
// and nothing is flooded.
func TestIntegrationClusterAdded(t *testing.T) {
	ctx, r := open(t)
	undo(ctx, t, func(ctx context.Context) error {
		r.c.KillDaemon()
		return r.c.start(ctx)
	})
	r.c.forgotten(ctx, t, r.a)
	web, db, flows := pair(ctx, t, r)
	pings := []*pinger{newPinger(ctx, t, r.a, "web", db.Addr(true)), newPinger(ctx, t, r.b, "db", web.Addr(false))}
	goOn := func(when string) {
		allAdvance(ctx, t, flows, when)
		for _, p := range pings {
			p.goesOn(ctx, t, when)
		}
	}
	goOn("with two hypervisors")
	assert.Equal(t, []string{r.a.name, r.b.name}, r.a.hosts(ctx, t))
	captures := map[*hyper]*capture{}
	for _, h := range r.all() {
		captures[h] = h.watch(t, blue4, blue6)
	}

	t.Run("added", func(t *testing.T) {
		require.NoError(t, r.c.start(ctx))
		r.a.awaitState(ctx, t, r.c, "alive")
		goOn("when a daemon has joined")
		r.c.bootGuest(ctx, t)
		added := attach(ctx, t, r.c, "added")
		for _, v6 := range []bool{false, true} {
			for _, old := range []site.Attachment{web, db} {
				reaches(ctx, t, r.c, "added", old.Addr(v6))
			}
			reaches(ctx, t, r.a, "web", added.Addr(v6))
			reaches(ctx, t, r.b, "db", added.Addr(v6))
		}
		goOn("with a pod on the added hypervisor")
	})
	goOn("when its pod and its guest are gone")
	r.c.forgotten(ctx, t, r.a)
	goOn("when it is removed")
	assert.Equal(t, []string{r.a.name, r.b.name}, r.a.hosts(ctx, t))
	for h, c := range captures {
		checkKinds(t, h, c.stop(t), true)
	}
}

// forgotten stops a hypervisor's daemon and has another one remove it for good.
func (h *hyper) forgotten(ctx context.Context, t *testing.T, by *hyper) {
	t.Helper()
	require.NoError(t, h.stop(ctx))
	by.awaitState(ctx, t, h, "dead")
	run(ctx, t, by, "hosts", "rm", h.name)
}

// hosts returns the names of the hypervisors that one knows.
func (h *hyper) hosts(ctx context.Context, t *testing.T) (names []string) {
	t.Helper()
	var got struct {
		Hypervisors []struct{ Name string }
	}
	require.NoError(t, h.BrfuseJSON(ctx, &got, "hosts"))
	for _, x := range got.Hypervisors {
		names = append(names, x.Name)
	}
	return names
}

// bootGuest gives a hypervisor a guest, until the test ends.
func (h *hyper) bootGuest(ctx context.Context, t *testing.T) {
	t.Helper()
	vm, err := h.BootConfig(ctx, vmlab.Config{Name: "vm-" + h.name, Mem: 192})
	require.NoError(t, err)
	undo(ctx, t, func(ctx context.Context) error {
		h.vm = nil
		_, err := h.MustBrfuse(ctx, "vm", "rm", vm.Name())
		return errors.Join(err, vm.Close()) //nolint:contextcheck // it has none
	})
	require.NoError(t, h.AddVM(ctx, vm))
	h.vm = vm
}

// pinger is a ping that goes on in a pod, of which each packet is to be answered.
type pinger struct {
	h    *hyper
	file string
}

// pingStep is between two packets, in seconds.
const pingStep = "0.2"

func newPinger(ctx context.Context, t *testing.T, h *hyper, pod, to string) *pinger {
	t.Helper()
	log := fmt.Sprintf("added-%s.log", pod)
	p, err := h.vm.Start(ctx, vmlab.Command{Argv: []string{"/usr/bin/ping", "-n", "-i", pingStep, to}, Netns: pod, Log: log})
	require.NoError(t, err)
	undo(ctx, t, p.Kill)
	return &pinger{h: h, file: "/run/log/" + log}
}

var answered = regexp.MustCompile(`icmp_seq=(\d+) ttl=`)

// goesOn waits for more answers, and looks whether one is missing.
func (p *pinger) goesOn(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	seen := map[int]bool{}
	first := -1
	require.NoError(t, site.Until(ctx, "answers to ping "+when, func(ctx context.Context) (bool, error) {
		b, err := p.h.vm.Get(ctx, p.file)
		for _, m := range answered.FindAllStringSubmatch(string(b), -1) {
			n, _ := strconv.Atoi(m[1]) // digits
			seen[n] = true
		}
		if first < 0 {
			first = len(seen)
		}
		return len(seen) >= first+5, err
	}))
	last := 0
	for n := range seen {
		last = max(last, n)
	}
	var lost []string
	for n := 1; n < last; n++ {
		if !seen[n] {
			lost = append(lost, strconv.Itoa(n))
		}
	}
	assert.Empty(t, lost, "%s: lost of %d packets: %s", when, last, strings.Join(lost, " "))
}
