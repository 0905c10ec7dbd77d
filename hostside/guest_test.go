package hostside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/vnic"
)

const guestSlots = 31 // of one bridge

// bootGuest returns a Host that has a real guest without an agent.
func bootGuest(t *testing.T) (*Host, *vmlab.VM, *netnstest.NS) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	ns := netnstest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	initrd, err := lab.Build(ctx, filepath.Join(dir, "initrd"), vmlab.Image{})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm", Dir: dir, Initrd: initrd, CPUs: 2, VNICs: guestSlots})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	var h *Host
	ns.In(func() (err error) {
		h, err = New(Config{Log: slog.New(slog.DiscardHandler)})
		return err
	})
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	require.NoError(t, h.SetNetwork(ctx, testNet))
	require.NoError(t, h.AddVM(ctx, vm.Ref()))
	return h, vm, ns
}

func TestIntegrationGuest(t *testing.T) {
	h, vm, ns := bootGuest(t)
	before := ns.State()
	for _, queues := range []int{1, 2} {
		t.Run(fmt.Sprintf("park and unpark, %d queues", queues), func(t *testing.T) {
			parkInGuest(t, h, vm, ns, queues)
		})
	}
	t.Run("plug during an unplug of the last slot", func(t *testing.T) { lastSlotInGuest(t, h, vm) })
	assert.Equal(t, before, ns.State())
}

// parkInGuest parks a vNIC whose guest goes on sending, and takes it back.
func parkInGuest(t *testing.T, h *Host, vm *vmlab.VM, ns *netnstest.NS, queues int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := testPlug()
	p.Parked, p.Queues = true, queues
	port, err := h.Plug(ctx, p)
	require.NoError(t, err)
	tap := p.ID.TapName()
	guest := func(script string) string {
		t.Helper()
		res, err := vm.Shell(ctx, script)
		require.NoError(t, err)
		require.NoError(t, res.Err())
		return res.Stdout
	}
	// The guest is up and sends before anyone unparked it.
	nic := strings.TrimSpace(guest(`until n=$(grep -l ` + p.MAC.String() + ` /sys/class/net/*/address); do sleep 0.05; done; basename $(dirname $n)`))
	guest("ip addr add 10.9.0.2/24 dev " + nic + "; ip link set " + nic + " up")
	page := []byte(strings.Repeat("brfuse ", 20_000))
	require.NoError(t, vm.Put(ctx, "/tmp/page", page, 0o600))
	srv, err := vm.Start(ctx, vmlab.Command{Argv: []string{"busybox", "httpd", "-f", "-p", "8080", "-h", "/tmp"}})
	require.NoError(t, err)
	defer func() { assert.NoError(t, srv.Kill(ctx)) }()
	cutOff := func(when string) {
		t.Helper()
		received := func() string { // bytes and packets
			_, rx, _ := strings.Cut(ns.Run("ip", "-s", "link", "show", tap), "RX:")
			return strings.Join(strings.Fields(strings.Split(rx, "\n")[1])[:2], " ")
		}
		before, stray := received(), dropped(t, h)
		guest("busybox arping -q -c 2 -w 1 -I " + nic + " 10.9.0.1 || true; ip neigh flush dev " + nic + "; ping -c 1 -W 1 10.9.0.1 >/dev/null && exit 1 || true")
		assert.Equal(t, before, received(), "%s: the host takes nothing in", when)
		assert.Equal(t, stray, dropped(t, h))
		assert.Less(t, cpuOf(t, vm.PID(), 400*time.Millisecond), 300*time.Millisecond, "%s: qemu spins", when)
	}
	cutOff("before")
	p.Parked = false
	for range 3 {
		require.NoError(t, h.Unpark(ctx, p))
		ns.Run("ping", "-c", "1", "-W", "5", "10.9.0.2")
		assert.True(t, bytes.HasSuffix(fetch(t, ns, "10.9.0.2:8080", "/page"), page), "with the guest's checksum and segmentation offloads")
		require.NoError(t, h.Park(ctx, "vm", p.ID))
	}
	cutOff("after")
	nothingWaits(t, h, ns, p, func(script string) string { return guest(strings.ReplaceAll(script, "NIC", nic)) })
	ports, err := h.Ports(ctx, "vm")
	require.NoError(t, err)
	assert.Equal(t, []vnic.Port{port}, ports)
	require.NoError(t, h.Unplug(ctx, "vm", p.ID))
}

// nothingWaits parks a vNIC under traffic, and then has the guest take it down and up,
// as it does from one pod to the next: none of what was sent to the first is left.
// Were it down before it is parked, the frames would wait in its receive ring.
func nothingWaits(t *testing.T, h *Host, ns *netnstest.NS, p vnic.Plug, guest func(string) string) {
	t.Helper()
	require.NoError(t, h.Unpark(t.Context(), p))
	done := make(chan error, 1)
	go func() {
		done <- ns.Do(func() error {
			return exec.CommandContext(t.Context(), "sh", "-c", "ping -q -i 0.002 -c 300 -W 1 10.9.0.2 || true").Run()
		})
	}()
	const received = "cat /sys/class/net/NIC/statistics/rx_packets"
	before := guest(received)
	require.Eventually(t, func() bool { return guest(received) != before }, 20*time.Second, time.Millisecond)
	require.NoError(t, h.Park(t.Context(), "vm", p.ID))
	last := guest(received)
	assert.Equal(t, last, guest("ip link set NIC down; ip link set NIC up; sleep 0.2; "+received))
	require.NoError(t, <-done)
}

// fetch returns the answer of a web server, its header included.
func fetch(t *testing.T, ns *netnstest.NS, server, path string) (answer []byte) {
	t.Helper()
	ns.In(func() error {
		c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", server)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		answer, err = io.ReadAll(c)
		return err
	})
	return answer
}

func dropped(t *testing.T, h *Host) map[string]uint64 {
	t.Helper()
	n, err := h.Dropped(t.Context())
	require.NoError(t, err)
	return n
}

// cpuOf returns the processor time that a process takes meanwhile.
func cpuOf(t *testing.T, pid int, meanwhile time.Duration) time.Duration {
	t.Helper()
	used := func() time.Duration {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		var ticks int
		for _, s := range f[11:13] { // utime, stime
			n, err := strconv.Atoi(s)
			require.NoError(t, err)
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
	start := used()
	<-time.After(meanwhile)
	return used() - start
}

// lastSlotInGuest fills the VM, and has vNICs come while as many leave.
func lastSlotInGuest(t *testing.T, h *Host, vm *vmlab.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	free, total, err := h.Free(ctx, "vm")
	require.NoError(t, err)
	plugs := make([]vnic.Plug, free)
	errs := make([]error, free)
	var wg sync.WaitGroup
	for i := range plugs {
		plugs[i] = testPlug()
		plugs[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + i)})}
		wg.Go(func() { _, errs[i] = h.Plug(ctx, plugs[i]) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	_, err = h.Plug(ctx, testPlug())
	require.ErrorIs(t, err, vnic.ErrNoSlot)

	const n = 4
	fresh := [n]vnic.Plug{}
	started := make(chan struct{})
	for i := range n {
		fresh[i] = testPlug()
		wg.Go(func() { started <- struct{}{}; errs[i] = h.Unplug(ctx, "vm", plugs[i].ID) })
		<-started
	}
	v, err := h.vm("vm")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return v.leaving.next() != nil }, 5*time.Second, time.Millisecond)
	for i := range n {
		wg.Go(func() { _, errs[n+i] = h.Plug(ctx, fresh[i]) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	// The guest may power a slot off when the next vNIC is there already, which is put
	// back then: what it sees in the end is what counts.
	assert.EventuallyWithT(t, func(t *assert.CollectT) {
		left, _, err := h.Free(ctx, "vm")
		assert.NoError(t, err)
		assert.Zero(t, left, "of %d", total)
		ports, err := h.Ports(ctx, "vm")
		assert.NoError(t, err)
		assert.Len(t, ports, free)
		seen, err := vm.Shell(ctx, "cat /sys/class/net/*/address")
		assert.NoError(t, err)
		for _, p := range fresh {
			assert.Contains(t, seen.Stdout, p.MAC.String())
		}
	}, 30*time.Second, 100*time.Millisecond)
	for i, p := range append(plugs[n:], fresh[:]...) {
		wg.Go(func() { errs[i] = h.Unplug(ctx, "vm", p.ID) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	left, _, err := h.Free(ctx, "vm")
	require.NoError(t, err)
	assert.Equal(t, free, left)
}
