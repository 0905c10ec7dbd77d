package netcost

import (
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The process is a QEMU with two emulated CPUs and debug-threads=on.
const qemu = 12074

func TestReadProcess(t *testing.T) {
	p, err := readProcess(os.DirFS("testdata/qemu"), qemu)
	require.NoError(t, err)
	vcpu := 3.297836871 // not a constant: those add up more exactly
	vcpu += 2.146449424
	assert.Equal(t, Process{
		PID: qemu, Name: "qemu-system-x86", User: 4.72, System: 1.03,
		Threads: map[string]float64{
			"main": 0.298061736, "other": 0.020838178, "iothread": 0.000274988, "vcpu": vcpu,
		},
	}, p)
	assert.InDelta(t, p.User+p.System, p.Total(), 0.02)

	_, err = readProcess(os.DirFS("testdata/qemu"), 1)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// stat returns /proc/PID/stat with that name and times in ticks.
func stat(name, utime, stime string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte("7 (" + name + ") S 1 7 7 0 -1 0 1 2 3 4 " + utime + " " + stime + " 0 0 20 0\n")}
}

func TestReadProcesses(t *testing.T) {
	ns := &fstest.MapFile{Data: []byte("1500000000 7 1\n")}
	proc := fstest.MapFS{
		// A kernel without schedstat, before Linux 6.4.
		"70/stat": stat("qemu) S (x", "300", "100"), "70/task/70/stat": stat("qemu) S (x", "100", "50"),
		"70/task/71/stat": stat("CPU 0/KVM", "200", "50"), "70/task/72": {Mode: fs.ModeDir}, // has just ended
		"500/stat": stat("vhost-70", "0", "250"), "501/stat": stat("vhost-70", "0", "50"), "502/stat": stat("vhost-9", "0", "50"),
		"502/task/502/stat": stat("vhost-9", "0", "50"),
		// One since then.
		"80/stat": stat("qemu", "300", "100"), "80/task/80/stat": stat("qemu", "0", "0"),
		"80/task/81/stat": stat("vhost-80", "0", "100"), "80/task/81/schedstat": ns,
		"net/dev": {}, "self/stat": stat("vhost-70", "0", "100"),
	}
	var c Counters
	require.NoError(t, c.readProcesses(proc, []int{70, 80}, true))
	assert.Equal(t, []Process{
		{PID: 70, Name: "qemu) S (x", User: 3, System: 1, Threads: map[string]float64{"main": 1.5, "vcpu": 2.5}, Vhost: 3},
		{PID: 80, Name: "qemu", User: 3, System: 1, Threads: map[string]float64{"main": 0, "vhost": 1.5}, Vhost: 1.5},
	}, c.Processes)

	var without Counters
	require.NoError(t, without.readProcesses(proc, []int{70}, false))
	assert.Zero(t, without.Processes[0].Vhost)

	err := c.readProcesses(proc, []int{99}, false)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "process 99")
}

func TestParseTask(t *testing.T) {
	for _, tt := range []struct{ name, in, wantErr string }{
		{"empty", "", "no name"},
		{"brackets the wrong way round", "7 )x( S 1", "no name"},
		{"cut off", "7 (x) S 1 2 3", "4 columns"},
		{"no number", "7 (x) S 1 7 7 0 -1 0 1 2 3 4 x 5 0\n", "invalid syntax"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseTask([]byte(tt.in))
			require.ErrorContains(t, err, tt.wantErr)
		})
	}
	_, err := parseSchedstat(nil)
	require.Error(t, err)
}
