package integration

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// capacityMaxEnv is the environment variable that says how many vNICs
// TestIntegrationCapacityMax tries, in place of its default: "all" for all that
// a layout has.
const capacityMaxEnv = "BRFUSE_CAPACITY_MAX"

const (
	defaultMax = 310 // as many as ten bridges take: all of the largest layout take a quarter of an hour
	manyVNICs  = 248 // of eight bridges
	timed      = 20  // attaches that are timed, of each guest
)

// capacity is what a run tells machines, as a line of JSON. Times are in
// milliseconds, memory in KiB.
type capacity struct {
	VNICs  int     `json:"vnics"`
	CPUs   int     `json:"cpus"`
	BootMS float64 `json:"bootMs"`

	FirstMedian float64 `json:"attachFirstMedianMs,omitempty"`
	FirstP99    float64 `json:"attachFirstP99Ms,omitempty"`
	LastMedian  float64 `json:"attachLastMedianMs,omitempty"`
	LastP99     float64 `json:"attachLastP99Ms,omitempty"`
	Ratio       float64 `json:"attachLastToFirst,omitempty"`
	AttachMS    float64 `json:"attachEachMs"` // wall time by number, of those made some at a time
	DetachMS    float64 `json:"detachEachMs"`

	GuestKiB   float64 `json:"guestKiBPerVNIC"`
	QEMUKiB    float64 `json:"qemuKiBPerVNIC"`
	QEMUOwnKiB float64 `json:"qemuOwnKiBPerVNIC"`
	Interrupts float64 `json:"msiInterruptsPerVNIC"`
	EndedBy    string  `json:"endedBy,omitempty"`
}

// print writes the line that machines look for.
func (c capacity) print(t *testing.T) {
	t.Helper()
	line, err := json.Marshal(c)
	require.NoError(t, err)
	t.Logf("capacity: %s", line)
}

// TestIntegrationCapacity gives 248 pods of one guest a vNIC each, which all
// answer, and takes them away again. It tells whether the last attaches are as
// quick as the first ones of a second guest, with a daemon of its own, made in
// turn with them; and what a vNIC takes.
func TestIntegrationCapacity(t *testing.T) {
	cfg := vmlab.Config{Name: "vm1", VNICs: manyVNICs, CPUs: 2, Mem: 1024}
	ctx, c := newCrowd(t, cfg)
	res := capacity{VNICs: cfg.VNICs, CPUs: cfg.CPUs, BootMS: milliseconds(c.took)}
	most, rest := c.pods[:len(c.pods)-timed], c.pods[len(c.pods)-timed:]
	took, err := each(most, abreast, func(pod string) error {
		_, err := c.calls.attach(ctx, pod)
		return err
	})
	require.NoError(t, err)
	_, empty := newCrowd(t, vmlab.Config{Name: "vm2", VNICs: timed, CPUs: cfg.CPUs, Mem: 256})
	first, last := inTurn(ctx, t, empty, empty.pods, c, rest)
	c.pingAll(ctx, t, c.pods)
	assert.Len(t, settled(ctx, t, c.site, c.vm).Store, manyVNICs)
	c.perVNIC(ctx, t, &res, len(c.pods))
	res.AttachMS, res.DetachMS = milliseconds(took), milliseconds(c.detachAll(ctx, t, c.pods))
	empty.detachAll(ctx, t, empty.pods)
	res.FirstMedian, res.FirstP99 = milliseconds(quantile(first, 0.5)), milliseconds(quantile(first, 0.99))
	res.LastMedian, res.LastP99 = milliseconds(quantile(last, 0.5)), milliseconds(quantile(last, 0.99))
	res.Ratio = math.Round(100*res.LastMedian/res.FirstMedian) / 100
	res.print(t)
	assert.Less(t, res.Ratio, 4.0, "the goal is 2, of an idle machine; this is of a busy one")
}

// inTurn attaches as many pods of two crowds, one of each in turn, and returns how long
// each took.
func inTurn(ctx context.Context, t *testing.T, a *crowd, as []string, b *crowd, bs []string) (first, last []time.Duration) {
	t.Helper()
	require.Len(t, as, len(bs))
	for i := range as {
		x, err := a.calls.attach(ctx, as[i])
		require.NoError(t, err)
		y, err := b.calls.attach(ctx, bs[i])
		require.NoError(t, err)
		first, last = append(first, x), append(last, y)
	}
	return first, last
}

// TestIntegrationCapacityMax fills the largest layout until something ends it,
// and says what.
func TestIntegrationCapacityMax(t *testing.T) {
	cfg := vmlab.Config{Name: "vm1", VNICs: topology.MaxVNICs, CPUs: 2, Mem: 2048}
	ctx, c := newCrowd(t, cfg)
	res := capacity{CPUs: cfg.CPUs, BootMS: milliseconds(c.took)}
	pods := append(c.pods[:wantedMax(t):len(c.pods)], "excess")
	addBarePods(ctx, t, c.vm, pods[len(pods)-1:])
	var mu sync.Mutex
	var there []string
	began := time.Now()
	_, err := each(pods, abreast, func(pod string) error {
		if _, err := c.calls.attach(ctx, pod); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		there = append(there, pod)
		return nil
	})
	res.VNICs = len(there)
	res.AttachMS = milliseconds(time.Since(began) / time.Duration(max(1, len(there))))
	if err != nil {
		res.EndedBy, _, _ = strings.Cut(err.Error(), "\n")
	}
	if len(pods) > topology.MaxVNICs {
		require.Error(t, err, "one pod more than there are slots")
	} else {
		require.NoError(t, err)
	}
	assert.GreaterOrEqual(t, len(there), manyVNICs, "ended by: %s", res.EndedBy)
	c.pingAll(ctx, t, there)
	assert.Len(t, settled(ctx, t, c.site, c.vm).Store, len(there))
	c.perVNIC(ctx, t, &res, len(there))
	res.DetachMS = milliseconds(c.detachAll(ctx, t, there))
	res.print(t)
}

// wantedMax returns how many vNICs are to be attached.
func wantedMax(t *testing.T) int {
	t.Helper()
	v := os.Getenv(capacityMaxEnv)
	if v == "" {
		return defaultMax
	}
	if v == "all" {
		return topology.MaxVNICs
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err, capacityMaxEnv)
	require.LessOrEqual(t, n, topology.MaxVNICs, capacityMaxEnv)
	return n
}
