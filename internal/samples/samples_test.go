package samples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/samples"
)

func TestRecorder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	rec, err := samples.Create(path)
	require.NoError(t, err)
	require.NoError(t, rec.Write(struct {
		Kernel string `json:"kernel"`
	}{"6.1"}))
	for round, ms := range []time.Duration{100, 3, 5, 4} {
		rec.Begin(round)
		rec.Add("slow", 2*ms*time.Millisecond)
		rec.Add("fast", ms*time.Millisecond)
	}
	good, err := rec.Compare(samples.Comparison{Name: "slow / fast", Of: "slow", To: "fast", Goal: 2})
	require.NoError(t, err)
	bad, err := rec.Compare(samples.Comparison{Name: "slow / fast again", Of: "slow", To: "fast", Goal: 1.9})
	require.NoError(t, err)
	free, err := rec.Compare(samples.Comparison{Name: "no goal", Of: "fast", To: "slow"})
	require.NoError(t, err)
	require.NoError(t, rec.Close())

	assert.Equal(t, []float64{6, 10, 8}, rec.Series["slow"], "a round to warm up counts for nothing")
	assert.InDelta(t, 2, good.Value, 1e-9)
	assert.False(t, good.Missed)
	assert.True(t, bad.Missed)
	assert.False(t, free.Missed)
	set, err := samples.ReadFiles(path)
	require.NoError(t, err)
	assert.Equal(t, rec.Series, set.Series)
	assert.Equal(t, []samples.Ratio{good, bad, free}, set.Ratios)
}

func TestCompareRefuses(t *testing.T) {
	rec, err := samples.Create("")
	require.NoError(t, err)
	rec.Begin(1)
	rec.Add("two", 1)
	rec.Add("two", 1)
	rec.Add("one", 1)
	rec.Add("zero", 0)
	for _, tc := range []struct{ name, of, to, err string }{
		{"unequal", "two", "one", "compare two with one: 2 and 1 samples"},
		{"none", "none", "nothing", "compare none with nothing: 0 and 0 samples"},
		{"zero", "one", "zero", "compare one with zero: a median is 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := rec.Compare(samples.Comparison{Of: tc.of, To: tc.to})
			assert.EqualError(t, err, tc.err)
		})
	}
}

func TestCloseTellsOfAdd(t *testing.T) {
	rec, err := samples.Create("/dev/full")
	require.NoError(t, err)
	rec.Add("a", 1)
	assert.ErrorContains(t, rec.Close(), "write samples")
}

func TestPrint(t *testing.T) {
	var out strings.Builder
	require.NoError(t, samples.Print(&out, []samples.Ratio{
		{Comparison: samples.Comparison{Name: "a / b", Goal: 1.3}, Value: 1.25, Low: 1.1, High: 1.4},
		{Comparison: samples.Comparison{Name: "c / d", Goal: 0.15}, Value: 0.2, Low: 0.19, High: 0.21, Missed: true},
		{Comparison: samples.Comparison{Name: "e / f"}, Value: 0.5, Low: 0.4, High: 0.6},
	}))
	want := `ratio of medians                                      ratio   95 % interval   goal
a / b                                                  1.25    1.10 to 1.40   1.30  MET
c / d                                                  0.20    0.19 to 0.21   0.15  MISSED
e / f                                                  0.50    0.40 to 0.60      -
`
	assert.Equal(t, want, out.String())
}

func TestReadRefuses(t *testing.T) {
	for _, tc := range []struct{ name, in, err string }{
		{"no JSON", "{}\nrubbish\n", "line 2: "},
		{"negative", `{"series":"a","round":1,"nanoseconds":-1}`, "line 1: series a: a sample of -1ns"},
		{"long", "{}\n" + strings.Repeat(" ", 70<<10), "line 2: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s samples.Set
			assert.ErrorContains(t, s.Read(strings.NewReader(tc.in)), tc.err)
		})
	}
}

func TestReadFilesMissing(t *testing.T) {
	_, err := samples.ReadFiles(filepath.Join(t.TempDir(), "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzRead(f *testing.F) {
	f.Add(`{"series":"a","round":1,"nanoseconds":5}` + "\n" + `{"ratio":"a / b","of":"a","to":"b","value":1,"low":1,"high":2}`)
	f.Add(`{"kernel":"6.1","cpus":2}`)
	f.Add(`{"series":"a","round":0,"nanoseconds":5}`)
	f.Fuzz(func(t *testing.T, in string) {
		var s samples.Set
		if s.Read(strings.NewReader(in)) != nil {
			return
		}
		for name, xs := range s.Series {
			require.NotEmpty(t, name)
			for _, x := range xs {
				require.GreaterOrEqual(t, x, 0.0)
			}
		}
	})
}
