package netload

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// diary is an Observer that tells what a party had received when.
type diary struct {
	mu      sync.Mutex
	began   int
	entries []string
	at      func() uint64 // what has been received so far
}

func (d *diary) observe() func() json.RawMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.began++
	before := d.at()
	start := time.Now()
	return func() json.RawMessage {
		d.mu.Lock()
		defer d.mu.Unlock()
		e := fmt.Sprintf(`{"before":%d,"after":%d,"ns":%d}`, before, d.at(), time.Since(start))
		d.entries = append(d.entries, e)
		return json.RawMessage(e)
	}
}

type entry struct{ Before, After, NS uint64 }

func readEntry(t *testing.T, b json.RawMessage) entry {
	t.Helper()
	var e entry
	require.NoError(t, json.Unmarshal(b, &e))
	return e
}

func TestObservers(t *testing.T) {
	for _, c := range []struct {
		name   string
		spec   Spec
		counts bool // the server receives
	}{
		{"stream by count", Spec{Kind: TCPStream, Size: 1000, Count: 700, Flows: 2}, true},
		{"reverse by count", Spec{Kind: TCPStream, Size: 1000, Count: 700, Reverse: true}, false},
		{"datagrams by count", Spec{Kind: UDPStream, Size: 64, Count: 300, Rate: 10000}, true},
		{"exchanges by time", Spec{Kind: TCPRR, Size: 64, Duration: 150 * time.Millisecond}, false},
		{"stream by time", Spec{Kind: TCPStream, Size: 1000, Duration: 150 * time.Millisecond}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *Server
			there := &diary{at: func() uint64 { return onlyRun(s).received() }}
			here := &diary{at: func() uint64 { return 0 }}
			s = listen(t, Options{Observe: there.observe})
			c.spec.WarmUp = 30 * time.Millisecond
			r, err := Run(t.Context(), s.Addr(), c.spec, RunOptions{Observe: here.observe})
			require.NoError(t, err)
			for _, d := range []*diary{there, here} {
				assert.Equal(t, 1, d.began, "in the measured phase only")
				assert.Len(t, d.entries, 1)
			}
			remote, local := readEntry(t, r.Remote), readEntry(t, r.Local)
			assert.Zero(t, remote.Before, "nothing of the warm-up")
			if c.counts {
				want := r.Received
				if r.Kind == TCPStream {
					want = r.Bytes
				}
				assert.Equal(t, want, remote.After, "all of it has arrived")
			}
			for _, e := range []entry{remote, local} {
				assert.Greater(t, time.Duration(e.NS), r.Elapsed-100*time.Millisecond) // of the other end, maybe
				assert.Less(t, time.Duration(e.NS), r.Elapsed+time.Second)
			}
		})
	}
}

func onlyRun(s *Server) *served {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.runs {
		return r
	}
	return nil
}

func TestObserverStopsWithTheClient(t *testing.T) {
	d := &diary{at: func() uint64 { return 0 }}
	s := listen(t, Options{Observe: d.observe})
	p := call(t, s)
	p.open(`{"kind":"tcp_crr","size":16}`)
	require.Empty(t, p.ask(`{"op":"begin","phase":2,"measured":true}`).Error)
	assert.Contains(t, p.ask(`{"op":"begin","phase":2,"measured":true}`).Error, "begin before the end")
	p.gone()
	assert.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.entries) == 1
	}, 5*time.Second, time.Millisecond)
	assert.Equal(t, 1, d.began)
}
