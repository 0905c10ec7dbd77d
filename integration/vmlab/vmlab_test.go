package vmlab_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// openLab skips the test where it can't run, but fails it in CI.
func openLab(t *testing.T) *vmlab.Lab {
	t.Helper()
	lab, err := vmlab.Open(t.Context(), vmlab.Options{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	return lab
}

// bootOne boots one guest for the test.
func bootOne(t *testing.T, lab *vmlab.Lab, img vmlab.Image) *vmlab.VM {
	t.Helper()
	dir := t.TempDir()
	initrd, err := lab.Build(t.Context(), filepath.Join(dir, "initrd"), img)
	require.NoError(t, err)
	vm, err := lab.Boot(t.Context(), vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	return vm
}

func TestIntegrationGuest(t *testing.T) {
	lab := openLab(t)
	vm := bootOne(t, lab, vmlab.Image{
		Modules: []string{"veth", "nf_tables"},
		Start:   [][]string{{"sh", "-c", "echo started; exec sleep 1000"}},
	})

	g := guest{lab, vm}
	t.Run("run", g.testRun)
	t.Run("context ends a command", g.testContext)
	t.Run("files", g.testFiles)
	t.Run("background", g.testBackground)
	t.Run("pods", g.testPods)
	t.Run("hotplug", g.testHotplug)
	t.Run("restart", g.testRestart)
}

// guest is what the subtests share: one guest that is booted once.
type guest struct {
	lab *vmlab.Lab
	vm  *vmlab.VM
}

func (g guest) testRun(t *testing.T) {
	out, err := g.vm.Output(t.Context(), "uname", "-a")
	require.NoError(t, err)
	assert.Contains(t, out, "vm1")
	assert.Contains(t, out, g.lab.Kernel.Release)

	res, err := g.vm.Shell(t.Context(), "echo out; echo err >&2; ip -V; exit 7")
	require.NoError(t, err)
	assert.Equal(t, 7, res.Code)
	assert.Contains(t, res.Stdout, "iproute2", "the shell runs the real ip")
	assert.Equal(t, "err\n", res.Stderr)

	out, err = g.vm.Output(t.Context(), "cat", "/run/log/sh.log")
	require.NoError(t, err)
	assert.Equal(t, "started", out)

	_, err = g.vm.Run(t.Context(), "no-such-program")
	require.ErrorContains(t, err, "no-such-program")
	_, err = g.vm.Shell(t.Context(), "head -c 2000000 /dev/zero")
	require.ErrorContains(t, err, "bytes of output")
	_, err = g.vm.Output(t.Context(), "sh", "-c", "ls /proc/sys/net/bridge && test -d /sys/module/nf_tables")
	require.Error(t, err, "a code is an error of Output")
	_, err = g.vm.Output(t.Context(), "test", "-d", "/sys/module/nf_tables")
	require.NoError(t, err, "the module's soft dependency was found")
}

func (g guest) testContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := g.vm.Shell(ctx, "sleep 4242 & sleep 4242")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Eventually(t, func() bool {
		out, err := g.vm.Output(t.Context(), "sh", "-c", "ps | grep -c '[s]leep 4242'; true")
		return err == nil && out == "0"
	}, 10*time.Second, 50*time.Millisecond, "the whole session of the command is killed")
}

func (g guest) testFiles(t *testing.T) {
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"small", []byte("a\x00\xff\n")},
		{"several chunks", bytes.Repeat([]byte("0123456789abcdef"), 40_000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, g.vm.Put(t.Context(), "/tmp/file", tc.data, 0o755))
			got, err := g.vm.Get(t.Context(), "/tmp/file")
			require.NoError(t, err)
			assert.True(t, bytes.Equal(tc.data, got))
		})
	}
	_, err := g.vm.Get(t.Context(), "/tmp/none")
	require.ErrorContains(t, err, "/tmp/none")
}

func (g guest) testBackground(t *testing.T) {
	p, err := g.vm.Start(t.Context(), vmlab.Command{Argv: []string{"sh", "-c", "trap 'exit $CODE' TERM; echo armed; while :; do sleep 0.05; done"}, Env: []string{"CODE=3"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		log, err := g.vm.Get(t.Context(), "/run/log/sh.log")
		return err == nil && strings.Contains(string(log), "armed")
	}, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, p.Signal(t.Context(), syscall.SIGTERM))
	code, err := p.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 3, code)

	p, err = g.vm.Start(t.Context(), vmlab.Command{Argv: []string{"echo", "noted"}, Log: "own.log"})
	require.NoError(t, err)
	_, err = p.Wait(t.Context())
	require.NoError(t, err)
	log, err := g.vm.Get(t.Context(), "/run/log/own.log")
	require.NoError(t, err)
	assert.Equal(t, "noted\n", string(log))

	p, err = g.vm.Find(t.Context(), "sleep") // the image started it
	require.NoError(t, err)
	require.NoError(t, p.Kill(t.Context()))
	code, err = p.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 128+9, code)
	_, err = g.vm.Find(t.Context(), "sleep")
	require.Error(t, err)
	_, err = g.vm.Start(t.Context(), vmlab.Command{})
	require.ErrorContains(t, err, "no command")
}

func (g guest) testPods(t *testing.T) {
	pid, err := g.vm.AddPod(t.Context(), "web", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
	require.NoError(t, err)
	assert.Positive(t, pid)
	_, err = g.vm.AddPod(t.Context(), "web")
	require.ErrorContains(t, err, "exists")
	_, err = g.vm.AddPod(t.Context(), "bad", "no-such-program")
	require.ErrorContains(t, err, "no-such-program")

	res, err := g.vm.RunIn(t.Context(), "web", "ip", "-br", "link")
	require.NoError(t, err)
	require.NoError(t, res.Err())
	assert.Equal(t, 1, strings.Count(res.Stdout, "\n"), "lo alone: %s", res.Stdout)
	for _, addr := range []string{"127.0.0.1", "[::1]"} {
		res, err = g.vm.RunIn(t.Context(), "web", "wget", "-q", "-O", "-", "http://"+addr+"/modules")
		require.NoError(t, err)
		require.NoError(t, res.Err())
		assert.Contains(t, res.Stdout, "virtio_net.ko")
	}

	require.NoError(t, g.vm.RemovePod(t.Context(), "web"))
	out, err := g.vm.Output(t.Context(), "sh", "-c", "ls /run/netns /run/pods; pidof httpd; true")
	require.NoError(t, err)
	assert.Equal(t, "/run/netns:\n\n/run/pods:", out)
}

func (g guest) testHotplug(t *testing.T) {
	type args map[string]any
	before, err := g.vm.Output(t.Context(), "ls", "/sys/class/net")
	require.NoError(t, err)
	mon := g.vm.Monitor()
	_, err = mon.Do(t.Context(), "netdev_add", args{"type": "hubport", "id": "n0", "hubid": 0})
	require.NoError(t, err)
	_, err = mon.Do(t.Context(), "device_add", args{
		"driver": "virtio-net-pci", "id": "d0", "netdev": "n0", "mac": "02:00:00:00:00:07", "bus": "brf-br1", "addr": "1", "romfile": "",
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		out, err := g.vm.Output(t.Context(), "sh", "-c", "cat /sys/class/net/*/address")
		return err == nil && strings.Contains(out, "02:00:00:00:00:07")
	}, 20*time.Second, 20*time.Millisecond, "the NIC shows in the guest")

	mark := mon.Mark()
	_, err = mon.Do(t.Context(), "device_del", args{"id": "d0"})
	require.NoError(t, err)
	require.NoError(t, mon.AwaitDeleted(t.Context(), mark, "d0"))
	_, err = mon.Do(t.Context(), "netdev_del", args{"id": "n0"})
	require.NoError(t, err)
	after, err := g.vm.Output(t.Context(), "ls", "/sys/class/net")
	require.NoError(t, err)
	assert.Equal(t, before, after)
	_, err = mon.Do(t.Context(), "device_del", args{"id": "d0"})
	require.ErrorContains(t, err, "DeviceNotFound")
}

func (g guest) testRestart(t *testing.T) {
	boot, err := g.vm.Get(t.Context(), "/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	ref, pid := g.vm.Ref(), g.vm.PID()
	g.vm.Kill()
	_, err = g.vm.Run(t.Context(), "true")
	require.Error(t, err)

	require.NoError(t, g.vm.Restart(t.Context()))
	again, err := g.vm.Get(t.Context(), "/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	assert.NotEqual(t, string(boot), string(again))
	assert.NotEqual(t, pid, g.vm.PID())
	assert.Equal(t, ref, g.vm.Ref())
	assert.FileExists(t, ref.QMP)
	assert.FileExists(t, ref.Channel)
}

func TestIntegrationBootFails(t *testing.T) {
	lab := openLab(t)
	dir := t.TempDir()
	broken := filepath.Join(dir, "initrd")
	require.NoError(t, os.WriteFile(broken, nil, 0o600))
	for _, tc := range []struct {
		name string
		cfg  vmlab.Config
		want string
	}{
		{"no name", vmlab.Config{Dir: dir, Initrd: broken}, "vm name"},
		{"no dir", vmlab.Config{Name: "vm1", Initrd: broken}, "required"},
		{"long dir", vmlab.Config{Name: "vm1", Dir: "/" + strings.Repeat("d", 120), Initrd: broken}, "shorter Dir"},
		{"no initrd", vmlab.Config{Name: "vm1", Dir: dir, Initrd: dir + "/none"}, "error reading initrd"},
		{"bad argument", vmlab.Config{Name: "vm1", Dir: dir, Initrd: broken, ExtraArgs: []string{"-device", "nonsense"}}, "nonsense"},
		{"no init", vmlab.Config{Name: "vm1", Dir: dir, Initrd: broken}, "Kernel panic"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := lab.Boot(t.Context(), tc.cfg)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestIntegrationNetNS(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("not root")
	}
	ns, err := vmlab.NewNetNS(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, ns.Close()) }()
	res, err := ns.Run(t.Context(), "ip", "-br", "link")
	require.NoError(t, err)
	require.NoError(t, res.Err())
	assert.Equal(t, 1, strings.Count(res.Stdout, "\n"), "lo alone: %s", res.Stdout)

	p, err := vmlab.StartProcess(ns.Command("sleep", "1000"))
	require.NoError(t, err)
	inside, err := os.Readlink("/proc/self/fd/" + filepath.Base(ns.Path()))
	require.NoError(t, err)
	require.Eventually(t, func() bool { // nsenter has entered
		of, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.PID()), "ns/net"))
		return err == nil && of == inside
	}, 5*time.Second, time.Millisecond)
	p.Kill()
	require.Error(t, p.Err())

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = ns.Run(ctx, "sleep", "1000")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
