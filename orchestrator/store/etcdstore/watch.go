package etcdstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brfuse/brfuse/orchestrator/store"
)

// Watch implements [store.Store]. It goes on after the loss of a connection, a
// member or the leader, for as long as ctx allows.
//
// Each watch has a stream of its own and takes from it at the reader's pace: what
// a slow reader leaves waits in etcd, and one that is overtaken by a compaction is
// told so. Where etcd tells of its progress (--watch-progress-notify-interval), a
// watch that sees no events isn't overtaken by a compaction while its connection
// is lost.
//
// clientv3's own watcher keeps all that a slow reader leaves in memory, and resumes
// at a revision whose deletions etcd before 3.4.34 and 3.5.16 may have forgotten
// without a word (etcd issue 18089).
func (s *Store) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	w := &watch{s: s, prefix: prefix, next: from}
	var began error
	if from <= 0 {
		began = w.now(ctx)
	}
	return func(yield func(store.Event, error) bool) {
		w, err := *w, began // a sequence may be ranged over again
		if err == nil {
			err = w.run(ctx, func(ev store.Event) bool { return yield(ev, nil) })
		}
		if err != nil {
			yield(store.Event{}, fmt.Errorf("watch %q from revision %d: %w", prefix, w.next, err))
		}
	}
}

// probeEvery is after how many responses a watch looks whether it was overtaken by
// a compaction. etcd keeps up to 128 responses for a stream; when these wait and the
// revision after them is compacted, etcd before 3.4.31 and 3.5.13 goes on with later
// ones without a word (etcd issue 17529). A look at less than 128 falls among those
// that waited.
const probeEvery = 100

// watch is one range over a Watch.
type watch struct {
	s      *Store
	prefix string
	next   int64 // all before this revision has been delivered
	lost   bool  // and said to be
}

// now has the watch begin after the present revision.
func (w *watch) now(ctx context.Context) error {
	return w.s.View(ctx, func(tx store.ReadTx) error {
		w.next = tx.Rev() + 1
		return nil
	})
}

// run delivers events until yield returns false, which is no error.
func (w *watch) run(ctx context.Context, yield func(store.Event) bool) error {
	ctx, done, err := w.s.bind(ctx) // not begin: who reads slowly shall not hold up Close
	if err != nil {
		return err
	}
	defer done()
	var pause backoff
	for {
		before, token := w.next, w.s.token()
		more, err := w.stream(ctx, yield)
		switch {
		case !more:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, store.ErrCompacted):
			return err
		case renewable(err) && w.s.login != nil:
			err = w.s.ask(ctx, func(ctx context.Context) error { return w.s.login.renew(ctx, token) })
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				return err
			}
		case !silent(err):
			return w.s.explain(ctx, err)
		}
		if w.next > before {
			pause = backoff{}
		}
		if !w.lost {
			w.lost = true
			w.s.cfg.Log.Warn("watch is interrupted", "etcd", w.s.where(), "prefix", w.prefix, "revision", w.next, "error", err)
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// stream delivers the events of one stream. It reports whether more are wanted,
// with the error that ended the stream.
func (w *watch) stream(ctx context.Context, yield func(store.Event) bool) (bool, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	st, err := pb.NewWatchClient(w.s.cli.ActiveConnection()).Watch(ctx)
	if err != nil {
		return true, rpctypes.Error(err)
	}
	if err := st.Send(w.request()); err != nil {
		return true, rpctypes.Error(err)
	}
	var events []*mvccpb.Event
	for n := 1; ; {
		resp, err := st.Recv()
		if err == nil {
			err = refusal(resp)
		}
		if err != nil {
			return true, rpctypes.Error(err)
		}
		if w.lost {
			w.lost = false
			w.s.cfg.Log.Info("watch goes on", "etcd", w.s.where(), "prefix", w.prefix, "revision", w.next)
		}
		if events = append(events, resp.Events...); resp.Fragment { // a revision may go on in the next response
			continue
		}
		if more, err := w.deliver(events, yield); !more || err != nil {
			return more, err
		}
		if n++; n%probeEvery == 0 {
			if err := w.probe(ctx); err != nil {
				return true, err
			}
		}
		if len(events) == 0 && !resp.Created { // all up to here has been sent
			w.next = max(w.next, resp.Header.Revision+1)
		}
		events = nil
	}
}

// probe returns [store.ErrCompacted] when the next revision is forgotten already.
func (w *watch) probe(ctx context.Context) error {
	err := w.s.ask(ctx, func(ctx context.Context) error {
		_, err := w.s.cli.Get(ctx, w.s.cfg.Prefix+"schema", clientv3.WithRev(w.next))
		if errors.Is(err, rpctypes.ErrFutureRev) {
			return nil
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("%w, before the watch got there: %w", store.ErrCompacted, err)
	}
	return err
}

// request asks for one revision more than is wanted: etcd then says so when the
// revision before the first wanted one is compacted, and not only that one itself.
func (w *watch) request() *pb.WatchRequest {
	key := w.s.dataKey(w.prefix)
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(key), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(key)),
		StartRevision: max(w.next-1, 1), PrevKv: true, ProgressNotify: true, Fragment: true,
	}}}
}

// refusal returns why etcd ends a watch, or nil.
func refusal(resp *pb.WatchResponse) error {
	switch {
	case resp.CompactRevision != 0:
		return fmt.Errorf("etcd is compacted up to revision %d: %w", resp.CompactRevision, store.ErrCompacted)
	case resp.Canceled:
		// The reason is the text of an error of gRPC, or of etcd.
		_, desc, ok := strings.Cut(resp.CancelReason, "desc = ")
		if !ok {
			desc = cmp.Or(resp.CancelReason, "etcd ended the watch")
		}
		return rpctypes.Error(errors.New(desc))
	}
	return nil
}

// deliver yields the events of whole revisions, in the order of the keys in each.
func (w *watch) deliver(events []*mvccpb.Event, yield func(store.Event) bool) (more bool, err error) {
	slices.SortFunc(events, func(a, b *mvccpb.Event) int {
		return cmp.Or(cmp.Compare(a.Kv.ModRevision, b.Kv.ModRevision), slices.Compare(a.Kv.Key, b.Kv.Key))
	})
	for i, e := range events {
		if e.Kv.ModRevision < w.next {
			continue
		}
		ev := store.Event{Item: w.s.item(e.Kv), Deleted: e.Type == mvccpb.Event_DELETE}
		if ev.Deleted {
			if e.PrevKv == nil { // compacted since, and so was all up to there
				return true, fmt.Errorf("etcd has forgotten what %q was before revision %d: %w", ev.Key, ev.Rev, store.ErrCompacted)
			}
			ev.Value = e.PrevKv.Value
		}
		if !yield(ev) {
			return false, nil
		}
		if i == len(events)-1 || events[i+1].Kv.ModRevision > ev.Rev {
			w.next = ev.Rev + 1
		}
	}
	return true, nil
}
