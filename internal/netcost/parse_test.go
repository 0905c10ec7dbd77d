package netcost

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is in testdata was read in a guest with Debian's kernel under QEMU's
// emulation, on its host, and of that QEMU.

func read(tb testing.TB, file string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(tb, err)
	return b
}

func TestParseStat(t *testing.T) {
	t.Run("guest", func(t *testing.T) {
		var c Counters
		require.NoError(t, c.parseStat(read(t, "guest/stat")))
		assert.Equal(t, CPU{User: 0.74, System: 5.7, Idle: 7.53, Softirq: 0.5}, c.CPU)
		assert.Equal(t, []CPU{
			{User: 0.24, System: 3.08, Idle: 3.59, Softirq: 0.21},
			{User: 0.5, System: 2.62, Idle: 3.94, Softirq: 0.29},
		}, c.CPUs)
		assert.EqualValues(t, 2796, c.ContextSwitches)
		assert.InDelta(t, 6.94, c.CPU.Busy(), 1e-9)
	})
	t.Run("host", func(t *testing.T) {
		var c Counters
		require.NoError(t, c.parseStat(read(t, "host/stat")))
		assert.Equal(t, CPU{User: 584.01, System: 227.61, Idle: 1616.41, IOWait: 9.32, Softirq: 16.91, Steal: 0.47}, c.CPU)
		assert.Len(t, c.CPUs, 2)
	})
	t.Run("guests, nice processes, an offline cpu", func(t *testing.T) {
		var c Counters
		require.NoError(t, c.parseStat([]byte("cpu 100 200 300 400 500 600 700 800 90 60\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu2 0 0 100 0 0 0 0 0 0 0 0 0\n")))
		assert.Equal(t, CPU{User: 3, System: 3, Idle: 4, IOWait: 5, IRQ: 6, Softirq: 7, Steal: 8, Guest: 1.5}, c.CPU)
		assert.Equal(t, CPU{}, c.CPUs[1])
		assert.Equal(t, CPU{System: 1}, c.CPUs[2])
	})
	for _, tt := range []struct{ name, in, wantErr string }{
		{"empty", "", "no line cpu"},
		{"no sum", "cpu0 1 1 1 1 1 1 1 1 1 1\n", "no line cpu"},
		{"short", "cpu 1 2 3\n", "3 columns, not 10"},
		{"negative", "cpu 1 1 1 -1 1 1 1 1 1 1\n", "-1"},
		{"huge number", "cpu9999 1 1 1 1 1 1 1 1 1 1\n", "no number of a cpu"},
		{"no number", "cpux 1 1 1 1 1 1 1 1 1 1\n", "no number of a cpu"},
		{"switches", "cpu 1 1 1 1 1 1 1 1 1 1\nctxt many\n", "context switches"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c Counters
			require.ErrorContains(t, c.parseStat([]byte(tt.in)), tt.wantErr)
		})
	}
}

func TestParseInterrupts(t *testing.T) {
	guest, err := parseInterrupts(read(t, "guest/interrupts"))
	require.NoError(t, err)
	for name, n := range map[string]uint64{
		"timer": 104, "i8042": 9 + 3, "PCIe PME, aerdrv": 0, "virtio0-virtqueues": 9, "virtio2-input.0": 0, "virtio2-output.0": 0,
		"LOC": 1328 + 1402, "RES": 47 + 59, "ERR": 0,
	} {
		assert.Contains(t, guest, name)
		assert.Equal(t, n, guest[name], name)
	}
	assert.Len(t, guest, 28, "a line each, but for i8042")

	host, err := parseInterrupts(read(t, "host/interrupts"))
	require.NoError(t, err)
	assert.EqualValues(t, 2476, host["virtio3-rx"])
	assert.EqualValues(t, 10794, host["virtio3-tx"])
	assert.EqualValues(t, 613071+594675, host["LOC"])

	_, err = parseInterrupts([]byte("no table"))
	require.Error(t, err)
}

func TestInterruptName(t *testing.T) {
	for _, tt := range []struct{ name, rest, want string }{
		{"with a level", " IO-APIC   2-edge      timer", "timer"},
		{"several", "   PCI-MSI 32768-edge      PCIe PME, aerdrv", "PCIe PME, aerdrv"},
		{"with brackets", "   PCI-MSI 512000-edge      ahci[0000:00:1f.2]", "ahci[0000:00:1f.2]"},
		{"long chip", " PCI-MSIX-0000:00:04.0   1-edge      virtio3-rx", "virtio3-rx"},
		{"nobody's", "  IO-APIC   5-edge", "irq 7"},
		{"without a level", "   GICv3  27  arch_timer", "arch_timer"},
		{"chip only", "   dummy", "irq 7"},
		{"nothing", "", "irq 7"},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, interruptName("7", tt.rest)) })
	}
}

func TestParseSoftirqs(t *testing.T) {
	guest, err := parseSoftirqs(read(t, "guest/softirqs"))
	require.NoError(t, err)
	assert.Equal(t, map[string]uint64{
		"HI": 0, "TIMER": 237 + 136, "NET_TX": 0, "NET_RX": 4, "BLOCK": 0, "IRQ_POLL": 0, "TASKLET": 1, "SCHED": 578 + 530, "HRTIMER": 0, "RCU": 320 + 396,
	}, guest)
	host, err := parseSoftirqs(read(t, "host/softirqs"))
	require.NoError(t, err)
	assert.EqualValues(t, 4794364+5883821, host["NET_RX"])
}

func TestParseSoftnet(t *testing.T) {
	guest, err := parseSoftnet(read(t, "guest/net/softnet_stat"))
	require.NoError(t, err)
	assert.Equal(t, Backlog{Processed: 4, Squeezed: 1}, guest)
	host, err := parseSoftnet(read(t, "host/net/softnet_stat"))
	require.NoError(t, err)
	assert.Equal(t, Backlog{Processed: 0x4cb343 + 0x5d5e44}, host)
	_, err = parseSoftnet([]byte("1 2\n"))
	require.Error(t, err)
	_, err = parseSoftnet([]byte("1 2 x\n"))
	require.Error(t, err)
}

func TestParseProtocols(t *testing.T) {
	counts := snmp{}
	require.NoError(t, counts.parse(read(t, "host/net/snmp")))
	require.NoError(t, counts.parse(read(t, "host/net/netstat")))
	require.NoError(t, counts.parse6(read(t, "host/net/snmp6")))
	p := counts.protocol("pod")
	assert.Equal(t, "pod", p.Namespace)
	assert.EqualValues(t, 8265, p.TCP.ActiveOpens)
	assert.EqualValues(t, 2800890, p.TCP.InSegments)
	assert.EqualValues(t, 180, p.TCP.Retransmitted)
	assert.EqualValues(t, 37, p.TCP.OutResets)
	assert.Equal(t, UDP{In: 4207299, Out: 4512791, NoPort: 1, InErrors: 305490, ReceiveBuffer: 305490}, p.UDP)
	assert.GreaterOrEqual(t, p.IP.Delivered, uint64(7313682))

	for _, tt := range []struct{ name, in, want4, want6 string }{
		{"names only", "Tcp: A B\n", "has names and no numbers", "3 columns"},
		{"other group", "Tcp: A\nUdp: 1\n", "1 names of Tcp:, and 1 numbers of Udp:", "counter Tcp:"},
		{"too few", "Tcp: A B\nTcp: 1\n", "2 names", "3 columns"},
		{"no number", "Tcp: A\nTcp: x\n", "counter Tcp.A", "counter Tcp:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.ErrorContains(t, snmp{}.parse([]byte(tt.in)), tt.want4)
			require.ErrorContains(t, snmp{}.parse6([]byte(tt.in)), tt.want6)
		})
	}
	s := snmp{}
	require.NoError(t, s.parse([]byte("Tcp: MaxConn InSegs\nTcp: -1 7\n\n")))
	assert.Equal(t, snmp{"Tcp.InSegs": 7}, s)
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*st/*")
	require.NoError(f, err)
	more, err := filepath.Glob("testdata/*st/net/*")
	require.NoError(f, err)
	tasks, err := filepath.Glob("testdata/qemu/*/*")
	require.NoError(f, err)
	require.NotEmpty(f, more)
	for _, file := range append(append(files, more...), tasks...) {
		if b, err := os.ReadFile(file); err == nil { // or a folder
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Counters
		if c.parseStat(b) == nil {
			assert.GreaterOrEqual(t, c.CPU.Busy(), 0.0)
			assert.LessOrEqual(t, len(c.CPUs), maxCPUs)
		}
		if m, err := parseInterrupts(b); err != nil {
			assert.Nil(t, m)
		}
		if m, err := parseSoftirqs(b); err != nil {
			assert.Nil(t, m)
		}
		if backlog, err := parseSoftnet(b); err != nil {
			assert.Zero(t, backlog)
		}
		s := snmp{}
		if s.parse(b) == nil && s.parse6(b) == nil {
			s.protocol("")
		}
		if task, err := parseTask(b); err != nil {
			assert.Zero(t, task)
		} else {
			assert.GreaterOrEqual(t, task.seconds, 0.0)
		}
		if s, err := parseSchedstat(b); err == nil {
			assert.GreaterOrEqual(t, s, 0.0)
		}
	})
}
