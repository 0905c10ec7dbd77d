package insn_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/insn"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// build returns the plugin, and skips the test where it can't be compiled.
func build(t *testing.T) (plugin, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	plugin, err = insn.Build(t.Context(), dir)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	return plugin, dir
}

func TestBuildWithoutGCC(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := insn.Build(t.Context(), t.TempDir())
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "install gcc and libc6-dev")
}

func TestCounterFile(t *testing.T) {
	dir := t.TempDir()
	c, err := insn.NewCounter("/x/insn.so", dir)
	require.NoError(t, err)
	files, err := filepath.Glob(dir + "/*")
	require.NoError(t, err)
	require.Len(t, files, 1)
	assert.Equal(t, []string{"-plugin", "/x/insn.so,counters=" + files[0]}, c.QEMUArgs())

	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	for _, w := range []struct {
		at   int64
		data string
	}{{0, "\x01\x02"}, {8, "\xff"}, {63 * 64, "\x03"}} { // the second is no counter
		_, err := f.WriteAt([]byte(w.data), w.at)
		require.NoError(t, err)
	}
	assert.Equal(t, uint64(0x201+3), c.Read(), "the sum of all vCPUs")

	require.NoError(t, c.Close())
	assert.NoFileExists(t, files[0])
	require.NoError(t, c.Close(), "again")
	_, err = insn.NewCounter("/x/insn.so", dir+"/none")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// loop compiles a program that executes 4 instructions that many times.
func loop(t *testing.T, loops int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "loop")
	out, err := exec.CommandContext(t.Context(), "gcc", "-O2", "-static", "-nostdlib", "-DLOOPS="+strconv.Itoa(loops),
		"-o", file, "testdata/loop.c").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

// TestIntegrationCount has a guest execute a known number of instructions more in
// one program than in another.
func TestIntegrationCount(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a guest")
	}
	plugin, dir := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	const loops = 25_000_000
	vm, c := boot(ctx, t, plugin, dir, vmlab.Image{Files: map[string]string{"/none": loop(t, 1), "/many": loop(t, loops)}})
	run := func(program string) uint64 {
		t.Helper()
		before := c.Read()
		_, err := vm.Output(ctx, program)
		require.NoError(t, err)
		return c.Read() - before
	}
	run("/none") // it is in the page cache then
	start := time.Now()
	none, many := run("/none"), run("/many")
	t.Logf("%d instructions to run a program, %d with 4 * %d more, in %s", none, many, loops, time.Since(start))
	assert.InEpsilon(t, 4*loops, many-none, 0.01)
}

// boot boots an emulated guest that is counted.
func boot(ctx context.Context, t *testing.T, plugin, dir string, img vmlab.Image) (*vmlab.VM, *insn.Counter) {
	t.Helper()
	t.Setenv("BRFUSE_ACCEL", "tcg")
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	c, err := insn.NewCounter(plugin, dir)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	initrd, err := lab.Build(ctx, dir+"/initrd", img)
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "counted", Dir: dir, Initrd: initrd, ExtraArgs: c.QEMUArgs()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) }) //nolint:contextcheck // has to be done when ctx has ended too
	assert.Positive(t, c.Read(), "it has booted")
	return vm, c
}
