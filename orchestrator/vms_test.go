package orchestrator_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestAddVM(t *testing.T) {
	cases := []struct {
		name string
		vm   vnic.VM
		want string // none: success
		is   error
	}{
		{name: "again", vm: vm("vm1")},
		{name: "not running", vm: vm("vm2")},
		{name: "vsock", vm: vnic.VM{Name: "vm2", QMP: "/run/q", Channel: "vsock:3:1024"}},
		{"name", vnic.VM{Name: "a/b"}, "add vm: vm name \"a/b\": use letters, digits, '-', '_' and '.', a letter or digit first: invalid argument", vnic.ErrInvalid},
		{"no qmp", vnic.VM{Name: "vm2"}, "add vm: vm vm2: neither a qmp socket nor a libvirt domain: invalid argument", vnic.ErrInvalid},
		{"qmp", vnic.VM{Name: "vm2", QMP: "q"}, `add vm: vm vm2: qmp socket "q" is no absolute path: invalid argument`, vnic.ErrInvalid},
		{name: "libvirt", vm: vnic.VM{Name: "vm2", Libvirt: "qemu:///system/web", Channel: "/run/c"}},
		{
			"both",
			vnic.VM{Name: "vm2", QMP: "/run/q", Libvirt: "qemu:///system/web", Channel: "/run/c"},
			"add vm: vm vm2: both qmp socket /run/q and libvirt domain qemu:///system/web: give one: invalid argument", vnic.ErrInvalid,
		},
		{
			"libvirt elsewhere",
			vnic.VM{Name: "vm2", Libvirt: "qemu+ssh://host/system/web", Channel: "/run/c"},
			`add vm: vm vm2: libvirt domain "qemu+ssh://host/system/web": it is on another machine, or reached as if it were: run brfused on the hypervisor itself; ` +
				"give qemu:///system/DOMAIN or qemu+unix:///system/DOMAIN?socket=PATH: invalid argument", vnic.ErrInvalid,
		},
		{
			"libvirt instead of qmp",
			vnic.VM{Name: "vm1", Libvirt: "qemu:///system/web", Channel: "/run/vm/vm1.agent"},
			"add vm vm1: it has qmp socket /run/vm/vm1.qmp and channel /run/vm/vm1.agent, not libvirt domain qemu:///system/web and /run/vm/vm1.agent; " +
				"remove it first by `brfuse vm rm vm1`: exists and differs", vnic.ErrConflict,
		},
		{"channel", vnic.VM{Name: "vm2", QMP: "/run/q", Channel: "tcp:1"}, `add vm: vm vm2: channel "tcp:1" is neither an absolute path nor vsock:CID:PORT: invalid argument`, vnic.ErrInvalid},
		{
			"differs",
			vnic.VM{Name: "vm1", QMP: "/run/q", Channel: "/run/c"},
			"add vm vm1: it has qmp socket /run/vm/vm1.qmp and channel /run/vm/vm1.agent, not qmp socket /run/q and /run/c; " +
				"remove it first by `brfuse vm rm vm1`: exists and differs", vnic.ErrConflict,
		},
		{
			"qmp of another",
			vnic.VM{Name: "vm2", QMP: "/run/vm/vm1.qmp", Channel: "/run/c"},
			"add vm vm2: qmp socket /run/vm/vm1.qmp is that of vm vm1; give each vm its own: in use", vnic.ErrInUse,
		},
		{
			"channel of another",
			vnic.VM{Name: "vm2", QMP: "/run/q", Channel: "/run/vm/vm1.agent"},
			"add vm vm2: channel /run/vm/vm1.agent is that of vm vm1; give each vm its own: in use", vnic.ErrInUse,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				err := r.orch.AddVM(r.t.Context(), c.vm)
				if c.want == "" {
					require.NoError(r.t, err)
					return
				}
				require.EqualError(r.t, err, c.want)
				require.ErrorIs(r.t, err, c.is)
				vms, err := r.orch.VMs(r.t.Context())
				require.NoError(r.t, err)
				assert.Equal(r.t, []vnic.VM{vm("vm1")}, vms)
			})
		})
	}
}

// TestAddVMOfOneDomain: a domain is one VM's, however it is written.
func TestAddVMOfOneDomain(t *testing.T) {
	inRig(t, func(r *rig) {
		add := func(name, domain, channel string) error {
			return r.orch.AddVM(r.t.Context(), vnic.VM{Name: name, Libvirt: domain, Channel: channel})
		}
		require.NoError(r.t, add("vm2", "qemu:///system/web", "/run/c2"))
		require.NoError(r.t, add("vm2", "qemu:///system/w%65b", "/run/c2"), "the same again")
		err := add("vm3", "qemu:///system/w%65b", "/run/c3")
		require.ErrorIs(r.t, err, vnic.ErrInUse)
		require.ErrorContains(r.t, err, "libvirt domain qemu:///system/web is that of vm vm2")
		require.NoError(r.t, add("vm3", "qemu:///system/db", "/run/c3"))
	})
}

func TestGuestNetworksOfAVMThatIsAddedAgain(t *testing.T) {
	inRig(t, func(r *rig) {
		for _, step := range []struct {
			name      string
			add, want []string
		}{
			{"as it is", nil, nil},
			{"one", []string{"blue"}, []string{"blue"}},
			{"left out", nil, []string{"blue"}},
			{"others", []string{"red", "green"}, []string{"red", "green"}},
			{"none", []string{vnic.NoNetwork}, []string{vnic.NoNetwork}},
			{"left out after none", nil, []string{vnic.NoNetwork}},
			{"all", []string{vnic.AllNetworks}, nil},
			{"left out after all", nil, nil},
		} {
			again := vm("vm1")
			again.GuestNetworks = step.add
			require.NoError(r.t, r.orch.AddVM(r.t.Context(), again), step.name)
			got, err := r.orch.VM(r.t.Context(), "vm1")
			require.NoError(r.t, err)
			assert.Equal(r.t, step.want, got.GuestNetworks, step.name)
		}
		fresh := vm("vm2")
		fresh.GuestNetworks = []string{vnic.AllNetworks}
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), fresh))
		got, err := r.orch.VM(r.t.Context(), "vm2")
		require.NoError(r.t, err)
		assert.True(r.t, got.Allows("blue"))
		fresh.GuestNetworks = []string{"blue", vnic.AllNetworks}
		require.ErrorContains(r.t, r.orch.AddVM(r.t.Context(), fresh), `"all" goes with no other`)
	})
}

func TestAddVMSockets(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "socket")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	longest := "/" + strings.Repeat("x", 106)
	cases := []struct {
		name         string
		qmp, channel string
		want         string // none: success
	}{
		{"socket", socket, "vsock:3:1", ""},
		{"not there", filepath.Join(dir, "q"), filepath.Join(dir, "c"), ""},
		{"longest", longest, longest, ""},
		{"qmp is a file", file, "/run/c", "qmp socket " + file + " is there and no socket; give the path that QEMU listens on: invalid argument"},
		{"channel is a directory", "/run/q", dir, "channel " + dir + " is there and no socket; give the path that QEMU listens on: invalid argument"},
		{"qmp is too long", longest + "x", "/run/c", "has 108 bytes, more than the 107 of a socket's path; choose a shorter one: invalid argument"},
		{"channel is too long", "/run/q", longest + "x", "has 108 bytes, more than the 107 of a socket's path; choose a shorter one: invalid argument"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				err := r.orch.AddVM(r.t.Context(), vnic.VM{Name: "vm2", QMP: c.qmp, Channel: c.channel})
				if c.want == "" {
					require.NoError(r.t, err)
					return
				}
				require.ErrorIs(r.t, err, vnic.ErrInvalid)
				require.ErrorContains(r.t, err, c.want)
			})
		})
	}
}

func TestAddVMFails(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Fail("addvm", errBoom)
		require.EqualError(r.t, r.orch.AddVM(r.t.Context(), vm("vm2")), "add vm vm2: register: boom")
		vms, err := r.orch.VMs(r.t.Context())
		require.NoError(r.t, err)
		assert.Equal(r.t, []vnic.VM{vm("vm1")}, vms)
	})
}

func TestRemoveVM(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.attach("db", "eth0")
		err := r.orch.RemoveVM(r.t.Context(), "vm1", false)
		require.ErrorIs(r.t, err, vnic.ErrInUse)
		require.ErrorContains(r.t, err, "remove vm vm1: the vm has 2 attachments, such as ")

		r.world.Fail("unplug", errBoom)
		require.ErrorIs(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", true), errBoom)
		_, err = r.orch.Attach(r.t.Context(), request("web", "eth1"))
		require.ErrorIs(r.t, err, vnic.ErrUnknownVM)
		r.world.Fail("unplug", nil)
		require.NoError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", true))
		synctest.Wait()
		r.nothingLeft()
		require.EqualError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", true), "remove vm vm1: it is not registered; see `brfuse vm list`: unknown vm")

		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm1")))
		r.attach("web", "eth0")
	})
}

func TestRemoveVMThatIsGone(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.world.Kill("vm1")
		require.NoError(r.t, r.orch.RemoveVM(r.t.Context(), "vm1", true))
		synctest.Wait()
		r.nothingLeft()
	})
}

// TestAddVMBeingMoved: nobody knows yet at which of its sockets it is.
func TestAddVMBeingMoved(t *testing.T) {
	inMigrationRig(t, func(r *rig, f *fakeMigrator) {
		f.settles(false, errBoom)
		_, err := r.orch.MigrateVM(r.t.Context(), "vm1", next(), 0)
		require.ErrorIs(r.t, err, errBoom)
		calls := r.world.Calls("addvm")
		require.ErrorIs(r.t, r.orch.AddVM(r.t.Context(), vm("vm1")), vnic.ErrInUse)
		assert.Equal(r.t, calls, r.world.Calls("addvm"), "a half was told of it")
		f.settles(false, nil)
		r.settleDown()
		require.NoError(r.t, r.orch.AddVM(r.t.Context(), vm("vm1")))
	})
}
