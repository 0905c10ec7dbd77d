package netcost

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// burnEnv makes this program one that burns so many seconds of CPU time.
const burnEnv = "BRFUSE_NETCOST_BURN"

func TestMain(m *testing.M) {
	if seconds, err := strconv.ParseFloat(os.Getenv(burnEnv), 64); err == nil {
		burn(seconds)
		return
	}
	m.Run()
}

// burn waits for a line, uses so much CPU time, half of it in the kernel, says how
// much it was, and waits for another line.
func burn(seconds float64) {
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	begin := used()
	for used()-begin < seconds/2 { // not by reads: the race detector would look at each byte
		pages, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err == nil {
			err = unix.Munmap(pages)
		}
		if err != nil {
			panic(err)
		}
	}
	buf := make([]byte, 1<<20)
	for n := 0; used()-begin < seconds; {
		for i := range buf {
			n += int(buf[i]) + i
		}
	}
	fmt.Println(used() - begin)
	_, _ = in.ReadString('\n')
}

// used returns the CPU time of this process in seconds.
func used() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func TestBurnedTime(t *testing.T) {
	const seconds = 1.5
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), burnEnv+"="+strconv.FormatFloat(seconds, 'g', -1, 64))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	o := Options{PIDs: []int{cmd.Process.Pid}, Vhost: true}

	before, err := Take(t.Context(), o)
	require.NoError(t, err)
	_, err = fmt.Fprintln(in)
	require.NoError(t, err)
	told, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	after, err := Take(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	burned, err := strconv.ParseFloat(strings.TrimSpace(told), 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, burned, seconds)

	c := after.Since(before)
	p := c.Processes[0]
	t.Logf("burned %.3f s: %+v; machine in %s: %+v, busy %.3f", burned, p, c.Elapsed, c.CPU, c.Busy())
	assert.InEpsilon(t, burned, p.User+p.System, 0.1, "by ticks")
	assert.InEpsilon(t, burned, p.Total(), 0.1, "by the scheduler's clock")
	assert.Greater(t, p.System, 0.1*burned)
	assert.Greater(t, p.User, 0.1*burned)
	assert.Zero(t, p.Vhost)
	// Others use the machine too.
	all := float64(len(c.CPUs)) * c.Elapsed.Seconds()
	assert.Greater(t, c.CPU.Busy(), 0.9*burned)
	assert.Greater(t, c.Busy(), 0.9*burned)
	assert.LessOrEqual(t, c.Busy(), all)
	assert.InDelta(t, all, c.CPU.Busy()+c.CPU.Idle+c.CPU.IOWait+c.CPU.Steal, 0.1*all, "all time is accounted for")
	assert.Positive(t, c.ContextSwitches)
	assert.Positive(t, c.Softirqs["TIMER"]+c.Softirqs["SCHED"]+c.Softirqs["RCU"])
	assert.Positive(t, c.Interrupts["LOC"])
}

// namespace returns a new namespace's path and a function to run programs in it.
func namespace(t *testing.T) (ns *netnsx.NS, path string, run func(argv ...string)) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	run = func(argv ...string) {
		t.Helper()
		require.NoError(t, ns.Do(func() error {
			out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
			}
			return nil
		}))
	}
	return ns, fmt.Sprintf("/proc/self/fd/%d", ns.FD()), run
}

// link is a veth pair between two namespaces, with UDP sockets at both ends.
type link struct {
	pathA, pathB string
	runA         func(...string)
	server       *net.UDPConn // in b
	client       net.Conn     // in a
}

func newLink(t *testing.T) *link {
	t.Helper()
	a, pathA, runA := namespace(t)
	b, pathB, runB := namespace(t)
	runA("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "/proc/"+strconv.Itoa(os.Getpid())+pathB[len("/proc/self"):])
	for _, run := range []func(...string){runA, runB} {
		run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
	}
	runA("ip", "address", "add", "10.1.0.1/24", "dev", "eth0")
	runB("ip", "address", "add", "10.1.0.2/24", "dev", "eth0")
	runA("ip", "link", "set", "eth0", "up")
	runB("ip", "link", "set", "eth0", "up")
	l := &link{pathA: pathA, pathB: pathB, runA: runA}
	require.NoError(t, b.Do(func() (err error) {
		l.server, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 1, 0, 2), Port: 6000})
		return err
	}))
	t.Cleanup(func() { _ = l.server.Close() }) // a test may have closed it
	require.NoError(t, a.Do(func() (err error) {
		l.client, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(10, 1, 0, 2), Port: 6000})
		return err
	}))
	t.Cleanup(func() { assert.NoError(t, l.client.Close()) })
	require.NoError(t, l.server.SetDeadline(time.Now().Add(10*time.Second)))
	return l
}

func (l *link) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := l.client.Write(make([]byte, 100)); err != nil {
			require.ErrorIs(t, err, syscall.ENOBUFS)
		}
	}
}

func (l *link) receive(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, _, err := l.server.ReadFrom(make([]byte, 200))
		require.NoError(t, err)
	}
}

// cost returns what something costs in both namespaces.
func (l *link) cost(t *testing.T, do func()) Cost {
	t.Helper()
	o := Options{Namespaces: []string{l.pathA, l.pathB}}
	before, err := Take(t.Context(), o)
	require.NoError(t, err)
	do()
	after, err := Take(t.Context(), o)
	require.NoError(t, err)
	return after.Since(before)
}

// eth0 returns what a cost has of a namespace's end.
func eth0(t *testing.T, c Cost, namespace string) Device {
	t.Helper()
	for _, d := range c.Devices {
		if d.Namespace == namespace && d.Name == "eth0" {
			return d
		}
	}
	require.Fail(t, "no device eth0")
	return Device{}
}

func TestIntegrationDevices(t *testing.T) {
	l := newLink(t)
	l.send(t, 1) // the neighbour is found
	l.receive(t, 1)

	t.Run("packets", func(t *testing.T) {
		c := l.cost(t, func() { l.send(t, 50); l.receive(t, 50) })
		from, to := eth0(t, c, l.pathA), eth0(t, c, l.pathB)
		assert.Equal(t, "veth", from.Driver)
		assert.EqualValues(t, 50, from.TxPackets)
		assert.EqualValues(t, 50*(14+20+8+100), from.TxBytes)
		assert.EqualValues(t, 50, to.RxPackets)
		assert.Equal(t, from.TxBytes, to.RxBytes)
		assert.Zero(t, from.Drops()+to.Drops())
		require.Len(t, c.Namespaces, 2)
		assert.Equal(t, UDP{Out: 50}, c.Namespaces[0].UDP)
		assert.Equal(t, UDP{In: 50}, c.Namespaces[1].UDP)
		assert.EqualValues(t, 50, c.Namespaces[1].IP.Delivered)
		assert.GreaterOrEqual(t, c.Backlog.Processed, uint64(50))
		assert.Positive(t, c.Softirqs["NET_RX"])
	})
	t.Run("full buffer", func(t *testing.T) {
		require.NoError(t, l.server.SetReadBuffer(4096))
		c := l.cost(t, func() { l.send(t, 200) })
		udp := c.Namespaces[1].UDP
		assert.Positive(t, udp.ReceiveBuffer)
		assert.Equal(t, udp.ReceiveBuffer, udp.InErrors)
		assert.EqualValues(t, 200, eth0(t, c, l.pathB).RxPackets)
	})
	t.Run("queueing discipline", func(t *testing.T) {
		l.runA("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit", "burst", "2000", "limit", "2000")
		c := l.cost(t, func() { l.send(t, 200) })
		from := eth0(t, c, l.pathA)
		assert.Greater(t, from.QdiscDrops, uint64(100))
		assert.Equal(t, from.QdiscDrops, from.Drops())
		assert.Less(t, from.TxPackets, uint64(100))
	})
	t.Run("no socket", func(t *testing.T) {
		l.runA("tc", "qdisc", "del", "dev", "eth0", "root")
		require.NoError(t, l.server.Close())
		c := l.cost(t, func() { _, _ = l.client.Write([]byte("x")) })
		assert.EqualValues(t, 1, c.Namespaces[1].UDP.NoPort)
	})
}
