package hostside

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/netnstest"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/vnic"
)

// movers are a host and a VM, of firmware alone, in one of two real QEMUs. It has a
// vNIC in its network and one that is parked.
type movers struct {
	h        *Host
	ns       *netnstest.NS
	order    vnic.Migration
	from, to *qmptest.QEMU
}

var bridgeArgs = []string{
	"-M", "q35", "-device", "pcie-root-port,id=rp1,chassis=1", "-device", "pcie-pci-bridge,id=br1,bus=rp1",
}

func newMovers(t *testing.T) *movers {
	t.Helper()
	m := &movers{ns: netnstest.New(t)}
	m.from = qmptest.StartQEMU(t, bridgeArgs...)
	m.to = qmptest.StartQEMU(t, append(bridgeArgs, "-incoming", "defer")...)
	m.ns.In(func() (err error) {
		m.h, err = New(Config{Log: slog.New(slog.DiscardHandler)})
		return err
	})
	t.Cleanup(func() { assert.NoError(t, m.h.Close()) })
	m.order.From = vnic.VM{Name: "vm", QMP: m.from.Path, Channel: "/run/vm.agent"}
	m.order.To = vnic.VM{Name: "vm", QMP: m.to.Path, Channel: "/run/vm2.agent"}
	resume(t, m.order.From)
	require.NoError(t, m.h.AddVM(t.Context(), m.order.From))
	require.NoError(t, m.h.SetNetwork(t.Context(), testNet))
	wired, parked := testPlug(), testPlug()
	wired.Bandwidth.Ingress = vnic.Rate{Bits: 8_000_000}
	parked.Parked, parked.Queues, wired.Queues = true, 2, 1
	for _, p := range []vnic.Plug{wired, parked} {
		_, err := m.h.Plug(t.Context(), p)
		require.NoError(t, err)
		p.MTU = 1500
		m.order.VNICs = append(m.order.VNICs, p)
	}
	return m
}

// resume starts a QEMU's guest.
func resume(t *testing.T, vm vnic.VM) {
	t.Helper()
	for {
		s, err := qmpvm.DialSeat(t.Context(), vm, slog.Default())
		if err != nil && t.Context().Err() == nil {
			continue // it is being started
		}
		require.NoError(t, err)
		require.NoError(t, s.Resume(t.Context()))
		require.NoError(t, s.Close())
		return
	}
}

// wired checks the taps: one in its network, with its limit, and one parked.
func (m *movers) wired(t *testing.T) {
	t.Helper()
	one, two := m.order.VNICs[0].ID.TapName(), m.order.VNICs[1].ID.TapName()
	link := m.ns.Run("ip", "-o", "link", "show", one)
	assert.Contains(t, link, "master bf-pods")
	assert.Contains(t, link, ",UP")
	assert.Contains(t, m.ns.Run("tc", "qdisc", "show", "dev", one), "tbf")
	assert.Contains(t, m.ns.Run("bridge", "fdb"), m.order.VNICs[0].MAC.String()+" dev "+one+" master bf-pods static")
	link = m.ns.Run("ip", "-o", "link", "show", two)
	assert.NotContains(t, link, "master")
	assert.NotContains(t, link, ",UP")
	assert.Contains(t, link, "parked")
	assert.NotRegexp(t, `brf[0-9a-f]{10}m`, m.ns.Run("ip", "-o", "link"))
}

// ports checks what the host has of the VM's vNICs.
func (m *movers) ports(t *testing.T) {
	t.Helper()
	ports, err := m.h.Ports(t.Context(), "vm")
	require.NoError(t, err)
	require.Len(t, ports, 2)
	for _, p := range ports {
		assert.True(t, p.Plug && p.Tap, p)
	}
}

func TestIntegrationMigrate(t *testing.T) {
	m := newMovers(t)
	require.NoError(t, m.h.CheckMigration(t.Context(), m.order))
	old := m.ns.Run("ip", "-o", "link", "show", m.order.VNICs[0].ID.TapName())
	require.NoError(t, m.h.Migrate(t.Context(), m.order))
	m.wired(t)
	assert.NotEqual(t, old, m.ns.Run("ip", "-o", "link", "show", m.order.VNICs[0].ID.TapName()), "it is another one")
	st, err := m.h.Status(t.Context(), "vm")
	require.NoError(t, err)
	assert.Equal(t, VMStatus{Moving: true}, st)
	for range 2 { // a daemon that was killed in between does it again
		moved, err := m.h.SettleMigration(t.Context(), m.order)
		require.NoError(t, err)
		assert.True(t, moved)
		m.wired(t)
	}
	m.from.AwaitEnd(t)
	require.NoError(t, m.h.AddVM(t.Context(), m.order.To))
	m.ports(t)
	for _, p := range m.order.VNICs {
		require.NoError(t, m.h.Unpark(t.Context(), p))
	}
}

// TestIntegrationMigrateRollsBack ends the QEMU that the guest didn't get to.
func TestIntegrationMigrateRollsBack(t *testing.T) {
	m := newMovers(t)
	before := m.ns.Run("ip", "-o", "addr")
	second := m.order.VNICs[1].ID.TapName() + "m"
	m.ns.Run("ip", "link", "add", second, "type", "bridge")
	require.ErrorContains(t, m.h.Migrate(t.Context(), m.order), second)
	m.ns.Run("ip", "link", "del", second)
	assert.Regexp(t, `brf[0-9a-f]{10}m`, m.ns.Run("ip", "-o", "link"), "the other QEMU has it")
	taps, err := m.h.ComingTaps(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "vm", taps[m.order.VNICs[0].ID])
	for range 2 {
		moved, err := m.h.SettleMigration(t.Context(), m.order)
		require.NoError(t, err)
		assert.False(t, moved)
	}
	m.to.AwaitEnd(t)
	assert.Equal(t, before, m.ns.Run("ip", "-o", "addr"))
	m.wired(t)
	require.NoError(t, m.h.AddVM(t.Context(), m.order.From))
	m.ports(t)
}

func TestIntegrationMigrateIsRefused(t *testing.T) {
	m := newMovers(t)
	for _, c := range []struct {
		name   string
		change func(*vnic.Migration)
		is     error
		says   string
	}{
		{"unknown", func(o *vnic.Migration) { o.From.Name = "vm9" }, vnic.ErrUnknownVM, "vm9"},
		{"nobody there", func(o *vnic.Migration) { o.To.QMP += "x" }, vnic.ErrVMGone, "the qemu to move to"},
		{"a vnic that it lacks", func(o *vnic.Migration) { o.VNICs = append(o.VNICs, testPlug()) }, vnic.ErrConflict, "lacks vnic"},
		{"a vnic that is not told of", func(o *vnic.Migration) { o.VNICs = o.VNICs[:1] }, vnic.ErrConflict, "still has vnic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			order := m.order
			c.change(&order)
			err := m.h.CheckMigration(t.Context(), order)
			require.ErrorIs(t, err, c.is)
			assert.ErrorContains(t, err, c.says)
		})
	}
	m.ports(t)
	t.Run("libvirt", func(t *testing.T) {
		h, _, _ := newTestHost(t)
		err := h.CheckMigration(t.Context(), vnic.Migration{From: testVM, To: m.order.To})
		require.ErrorIs(t, err, vnic.ErrUnsupported)
	})
	t.Run("runs", func(t *testing.T) {
		order := m.order
		order.To.QMP = qmptest.StartQEMU(t, bridgeArgs...).Path
		resume(t, order.To)
		err := m.h.CheckMigration(t.Context(), order)
		require.ErrorIs(t, err, vnic.ErrInvalid)
		assert.ErrorContains(t, err, "-incoming defer")
	})
}

// TestIntegrationSettleOfTheGone tells that a guest is gone with its QEMU.
func TestIntegrationSettleOfTheGone(t *testing.T) {
	m := newMovers(t)
	require.NoError(t, m.h.RemoveVM(t.Context(), "vm"))
	m.from.Kill()
	moved, err := m.h.SettleMigration(t.Context(), m.order)
	require.NoError(t, err)
	assert.False(t, moved)
	m.to.AwaitEnd(t)
	assert.NotContains(t, m.ns.Run("ip", "-o", "link"), ": brf")
	moved, err = m.h.SettleMigration(t.Context(), m.order)
	require.NoError(t, err)
	assert.False(t, moved)
}
