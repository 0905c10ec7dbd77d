package pin_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/pin"
)

func TestDivide(t *testing.T) {
	for _, tt := range []struct {
		name               string
		cpus               []int
		hypervisors, vcpus int
		want               string
	}{
		{"one guest, two CPUs", []int{0, 1}, 1, 1, "guest a on 0; the rest on 1"},
		{"CPUs that are not the first", []int{2, 3, 5}, 1, 1, "guest a on 2; the rest on 3,5"},
		{"one guest, four CPUs", []int{0, 1, 2, 3}, 1, 1, "vCPUs of guest a on 0, QEMU's other threads on 1; the rest on 2,3"},
		{"one CPU", []int{0}, 1, 1, "anywhere"},
		{"two guests, two CPUs", []int{0, 1}, 2, 1, "guest a on 0; guest b on 1; the rest on 0,1"},
		{"two guests, one CPU", []int{0}, 2, 1, "anywhere"},
		{
			"two guests, five CPUs",
			[]int{0, 1, 2, 3, 4},
			2, 1, "vCPUs of guest a on 0, QEMU's other threads on 1; vCPUs of guest b on 2, QEMU's other threads on 3; the rest on 0,1,2,3,4",
		},
		{"two guests with as many vCPUs as CPUs", []int{0, 1, 2, 3}, 2, 2, "guest a on 0,1; guest b on 2,3; the rest on 0,1,2,3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, pin.Divide(tt.cpus, tt.hypervisors, tt.vcpus).String())
		})
	}
}

func TestProcess(t *testing.T) {
	all, err := pin.Allowed()
	require.NoError(t, err)
	if len(all) < 2 {
		t.Skip("takes two CPUs")
	}
	last := all[len(all)-1:]
	require.NoError(t, pin.Process(os.Getpid(), last))
	assert.Equal(t, []string{strconv.Itoa(last[0])}, allowed(t))
	out, err := exec.CommandContext(t.Context(), "grep", "Cpus_allowed_list", "/proc/self/status").Output()
	require.NoError(t, err)
	assert.Equal(t, []string{"Cpus_allowed_list:", strconv.Itoa(last[0])}, strings.Fields(string(out)), "a process that is started later")
	require.NoError(t, pin.Process(os.Getpid(), all))
	assert.NotContains(t, allowed(t), strconv.Itoa(last[0]))
}

// allowed returns where the threads of this process may run.
func allowed(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		require.NoError(t, err)
		for line := range strings.Lines(string(raw)) {
			if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				seen[strings.TrimSpace(list)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestQEMUWithoutVCPUs(t *testing.T) {
	all, err := pin.Allowed()
	require.NoError(t, err)
	require.ErrorContains(t, pin.QEMU(os.Getpid(), all, all), "-name debug-threads=on")
}
