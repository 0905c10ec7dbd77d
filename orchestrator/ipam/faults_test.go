package ipam_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// pauseMost is the longest pause between two faults.
const pauseMost = 1500 * time.Millisecond

// fault is something that goes wrong, and is mended when do returns.
type fault struct {
	name string
	do   func(ctx context.Context, rnd *rand.Rand)
}

// faults has one fault after the other happen.
type faults struct {
	*stage
	rnd   *rand.Rand
	kinds []fault
}

// run goes on for as long as faulty; the last fault is mended within ctx.
func (f *faults) run(ctx, faulty context.Context) {
	count := map[string]int{}
	for rest(faulty, upTo(f.rnd, pauseMost)) && !f.t.Failed() {
		kind := f.kinds[f.rnd.IntN(len(f.kinds))]
		count[kind.name]++
		kind.do(ctx, f.rnd)
	}
	f.t.Logf("faults: %v", count)
}

func upTo(rnd *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(most)))
}

// hostFaults are those of hypervisors.
func (s *stage) hostFaults() []fault {
	some := func(rnd *rand.Rand) *host { return s.hosts[rnd.IntN(len(s.hosts))] }
	return []fault{
		{"connections cut", func(_ context.Context, rnd *rand.Rand) { some(rnd).wire.cut() }},
		{"replies lost", func(ctx context.Context, rnd *rand.Rand) {
			for _, i := range rnd.Perm(len(s.hosts))[:1+rnd.IntN(len(s.hosts))] {
				s.hosts[i].wire.mute()
				defer s.hosts[i].wire.cut()
			}
			rest(ctx, requestLimit+upTo(rnd, 2*requestLimit)) // the outcome can't be asked for either
		}},
		{"daemon killed", func(ctx context.Context, rnd *rand.Rand) { some(rnd).die(ctx, false) }},
		{"hypervisor released", func(ctx context.Context, rnd *rand.Rand) { some(rnd).die(ctx, true) }},
	}
}

// etcdFaults are those of etcd.
func (s *stage) etcdFaults() []fault {
	return []fault{
		{"leader killed", func(ctx context.Context, rnd *rand.Rand) { s.without(ctx, rnd, s.leader(ctx), 2*time.Second, s.kill) }},
		{"leader frozen", func(ctx context.Context, rnd *rand.Rand) { s.without(ctx, rnd, s.leader(ctx), 2*time.Second, s.freeze) }},
		{"majority killed", func(ctx context.Context, rnd *rand.Rand) { s.without(ctx, rnd, s.majority(rnd), 3*time.Second, s.kill) }},
		{"majority frozen", func(ctx context.Context, rnd *rand.Rand) {
			s.without(ctx, rnd, s.majority(rnd), 3*time.Second, s.freeze)
		}},
		{"compacted", func(ctx context.Context, _ *rand.Rand) {
			s.until(ctx, "compact etcd", func() error {
				_, err := s.members.Compact(ctx)
				return err
			})
		}},
	}
}

// leader returns the leader alone.
func (s *stage) leader(ctx context.Context) []*etcdtest.Member {
	m, err := s.members.Leader(ctx)
	if !assert.NoError(s.t, err) {
		return nil
	}
	return []*etcdtest.Member{m}
}

// majority returns all but one.
func (s *stage) majority(rnd *rand.Rand) []*etcdtest.Member {
	i := rnd.IntN(len(s.members.Members))
	var list []*etcdtest.Member
	for j, m := range s.members.Members {
		if j != i {
			list = append(list, m)
		}
	}
	return list
}

// without takes members away for a while by a function that returns how they come back.
func (s *stage) without(ctx context.Context, rnd *rand.Rand, list []*etcdtest.Member, most time.Duration, take func(*etcdtest.Member) (back func(context.Context) error)) {
	var backs []func(context.Context) error
	for _, m := range list {
		backs = append(backs, take(m))
	}
	rest(ctx, upTo(rnd, most))
	var wg sync.WaitGroup
	for _, back := range backs { // none serves before a majority runs
		wg.Go(func() { assert.NoError(s.t, back(ctx)) })
	}
	wg.Wait()
}

// kill kills a member as kill -9 does.
func (s *stage) kill(m *etcdtest.Member) func(context.Context) error {
	m.Kill()
	return m.Start
}

// freeze has a member stand still.
func (s *stage) freeze(m *etcdtest.Member) func(context.Context) error {
	assert.NoError(s.t, m.Pause())
	return func(context.Context) error { return m.Resume() }
}
