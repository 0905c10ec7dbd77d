package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/samples"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// TestMain is the process that follows, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == followCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// etcdIsThere skips a test where there is no etcd, and fails it in CI.
func etcdIsThere(t *testing.T) *etcdtest.Cluster {
	t.Helper()
	return etcdtest.Start(t, etcdtest.Options{})
}

// TestRun runs the whole of it with 20 hypervisors of 20 pods, which ends with an error
// when an address is given twice or something is left.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a change among 100,000 endpoints")
	}
	etcdIsThere(t)
	file := filepath.Join(t.TempDir(), "samples")
	var stdout, stderr strings.Builder
	args := []string{"-hypervisors", "20", "-pods", "20", "-rounds", "2", "-concurrency", "8", "-o", file, "-limit", "4m"}
	require.Zero(t, run(t.Context(), args, strings.NewReader(""), &stdout, &stderr), "%s", &stderr)
	t.Log("\n" + stdout.String())
	for _, part := range []string{
		"20 hypervisors, 20 pods on each, 1 members of etcd", "attach   4 transactions: ", "no address was leased twice",
		"the process that follows 420 endpoints: ",
	} {
		assert.Contains(t, stdout.String(), part)
	}
	set, err := samples.ReadFiles(file)
	require.NoError(t, err)
	require.Len(t, set.Ratios, len(comparisons()))
	for _, r := range set.Ratios {
		assert.Positive(t, r.Value, r.Name)
		assert.Contains(t, stdout.String(), r.Name)
	}
	assert.Len(t, set.Series[leaseSeries+p99Part], 2)
	assert.Len(t, set.Series[changeName(changeSizes[2])], changeRounds)
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"-h", 0, "-hypervisors"},
		{"-hypervisors 0", 2, "-hypervisors 0 is not in 1-2000"},
		{"-pods 1", 2, "-pods 1 is not in 2-100"},
		{"-pods 5 -rounds 5", 2, "-rounds 5 is not in 1-4"},
		{"-members 0", 2, "1 or more"},
		{"-fail-above -1", 2, "negative"},
		{"more", 2, `unexpected argument "more"`},
		{followCommand, 1, "want HOST:PORT"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr strings.Builder
			assert.Equal(t, tt.code, run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &stdout, &stderr))
			assert.Contains(t, stderr.String(), tt.want)
		})
	}
}

// TestChecks: what the checks at the end are for is found.
func TestChecks(t *testing.T) {
	c := etcdIsThere(t)
	hs, err := newFleet(t.Context(), etcdstore.Config{Endpoints: c.Endpoints()}, options{hypervisors: 2, pods: 2})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, hs.close()) })
	_, err = hs[0].orch.CreateNetwork(t.Context(), network)
	require.NoError(t, err)
	for _, h := range hs {
		for i := range h.pods {
			h.pods[i], err = h.attach(t.Context(), podName(i))
			require.NoError(t, err)
		}
	}
	s := hs[0].etcd
	require.NoError(t, hs.checkAttached(t.Context(), s))

	was := hs[1].pods[0]
	hs[1].pods[0] = hs[0].pods[0]
	require.ErrorContains(t, hs.checkAttached(t.Context(), s), "was given to")
	other := was
	other.ID = "other"
	hs[1].pods[0] = other
	require.ErrorContains(t, hs.checkAttached(t.Context(), s), `is given to "other" and leased to`)
	hs[1].pods[0] = was
	hs[1].pods = append(hs[1].pods, hs[1].pods[1])
	hs[1].pods[2].Leases = nil
	require.ErrorContains(t, hs.checkAttached(t.Context(), s), "has addresses []")
	hs[1].pods = hs[1].pods[:2]
	kept := hs[1].pods
	hs[1].pods = kept[:1]
	require.ErrorContains(t, hs.checkAttached(t.Context(), s), "6 endpoints of 3 pods")
	hs[1].pods = kept

	for _, h := range hs {
		for _, a := range h.pods {
			_, err := h.orch.Detach(t.Context(), a.ID)
			require.NoError(t, err)
		}
	}
	require.NoError(t, awaitEmpty(t.Context(), s))
	require.ErrorContains(t, hs.checkAttached(t.Context(), s), "0 endpoints of 4 pods")
}

func TestAt(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(i+1))
	}
	assert.Equal(t, time.Duration(50), at(took, 0.5))
	assert.Equal(t, time.Duration(99), at(took, 0.99))
	assert.Equal(t, time.Duration(1), at(took[:1], 0.99))
	assert.Equal(t, time.Duration(2), at(took[:3], 0.5))
}

func TestSpan(t *testing.T) {
	o := options{pods: 100, rounds: 9}
	next := 0
	for r := range o.rounds + 1 {
		from, to := o.span(r)
		assert.Equal(t, next, from)
		assert.Greater(t, to, from)
		next = to
	}
	assert.Equal(t, 100, next)
}

// TestSteps makes bare transactions after recorded ones.
func TestSteps(t *testing.T) {
	known := map[string]bool{}
	attach := tape{
		{reads: map[string]bool{"a": false, "q/": true}, writes: map[string][]byte{"a": []byte("1"), "b": {}}},
		{reads: map[string]bool{"a": false, "c": false}, writes: map[string][]byte{"a": []byte("2")}},
	}
	detach := tape{{reads: map[string]bool{"b": false}, writes: map[string][]byte{"a": nil, "b": nil}}}
	assert.Equal(t, []step{
		{absent: []string{"a"}, ranges: []string{"q/"}, puts: map[string]string{"a": "1", "b": ""}},
		{absent: []string{"c"}, present: []string{"a"}, puts: map[string]string{"a": "2"}},
	}, attach.steps(known))
	list := detach.steps(known)
	require.Len(t, list, 1)
	assert.Equal(t, []string{"b"}, list[0].present)
	assert.ElementsMatch(t, []string{"a", "b"}, list[0].deletes)
	assert.Empty(t, known)
}
