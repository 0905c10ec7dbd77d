package vmlab_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationDisk boots two guests at once from one small disk.
func TestIntegrationDisk(t *testing.T) {
	lab := openLab(t)
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("not root")
	}
	recipe := vmlab.Disk{
		Name: "test", Packages: []string{"busybox-static"}, MiB: 64,
		Files: map[string][]byte{"/etc/kept": []byte("disk"), "/etc/replaced": []byte("disk"), "/var/empty/": nil},
		Links: map[string]string{"/opt/link": "../etc"},
	}
	disk, err := lab.BuildDisk(t.Context(), recipe)
	require.NoError(t, err)
	built, err := os.Stat(disk)
	require.NoError(t, err)

	t.Run("cached", func(t *testing.T) {
		again, err := lab.BuildDisk(t.Context(), recipe)
		require.NoError(t, err)
		fi, err := os.Stat(again)
		require.NoError(t, err)
		assert.True(t, os.SameFile(built, fi), "not built again")
		other := recipe
		other.Files = map[string][]byte{"/etc/kept": []byte("other")}
		changed, err := lab.BuildDisk(t.Context(), other)
		require.NoError(t, err)
		t.Cleanup(func() { _ = os.Remove(changed) })
		assert.NotEqual(t, disk, changed)
		assert.FileExists(t, disk, "another work tree may be about to boot it")
	})
	t.Run("nothing to remove", func(t *testing.T) {
		other := recipe
		other.Remove = []string{"/usr/bin/no-such-*"}
		_, err := lab.BuildDisk(t.Context(), other)
		require.ErrorContains(t, err, "/usr/bin/no-such-*", "a recipe that is out of date is told")
	})

	vms := bootFromDisk(t, lab, disk)
	t.Run("root", diskGuest{vms[0]}.testRoot)
	t.Run("nothing is written back", func(t *testing.T) {
		require.NoError(t, vms[0].Put(t.Context(), "/etc/written", []byte("x"), 0o600))
		_, err := vms[0].Output(t.Context(), "sync")
		require.NoError(t, err)
		res, err := vms[1].Run(t.Context(), "test", "-e", "/etc/written")
		require.NoError(t, err)
		assert.Equal(t, 1, res.Code, "the other guest has a copy of its own")
		require.NoError(t, vms[0].Restart(t.Context()))
		res, err = vms[0].Run(t.Context(), "test", "-e", "/etc/written")
		require.NoError(t, err)
		assert.Equal(t, 1, res.Code)
	})
}

func bootFromDisk(t *testing.T, lab *vmlab.Lab, disk string) []*vmlab.VM {
	t.Helper()
	dir := t.TempDir()
	over := filepath.Join(dir, "over")
	require.NoError(t, os.WriteFile(over, []byte("image"), 0o600))
	initrd, err := lab.Build(t.Context(), filepath.Join(dir, "initrd"), vmlab.Image{
		Modules: []string{"virtio_blk"},
		Files:   map[string]string{"/etc/replaced": over, "/opt/link/added": over},
		Start:   [][]string{{"sh", "-c", "echo started; exec sleep 1000"}},
	})
	require.NoError(t, err)
	vms, err := lab.BootAll(t.Context(),
		vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd, Disk: disk, Mem: 512},
		vmlab.Config{Name: "vm2", Dir: dir, Initrd: initrd, Disk: disk})
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, vm := range vms {
			assert.NoError(t, vm.Close())
		}
	})
	return vms
}

// diskGuest is a guest whose root is the test's disk.
type diskGuest struct{ *vmlab.VM }

// testRoot checks the guest in its new root.
func (vm diskGuest) testRoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, tc := range []struct{ name, script, want string }{
		{"the disk is the root", "awk '$2 == \"/\" && $3 == \"ext4\" {print $1}' /proc/mounts", "/dev/vda"},
		{"a file of the disk", "cat /etc/kept", "disk"},
		{"an image's file wins", "cat /etc/replaced", "image"},
		{"an image's file behind a link", "cat /etc/added", "image"},
		{"an empty folder", "ls -d /var/empty", "/var/empty"},
		{"autostart", "cat /run/log/sh.log", "started"},
		{"controllers for children", "mkdir /sys/fs/cgroup/t && grep -c memory /sys/fs/cgroup/t/cgroup.controllers", "1"},
		{"a new root for containers", `mkdir -p /tmp/r && mount -t tmpfs none /tmp/r && mkdir /tmp/r/old &&
			unshare -m /bin/busybox sh -c 'cd /tmp/r && pivot_root . old && echo pivoted'`, "pivoted"},
		{"who joins the mount namespace has it too", "nsenter -t 1 -m cat /etc/kept", "disk"},
		{"orphans are reaped", `sh -c '(usleep 200000 & echo $! >/tmp/orphan)'
			until ! test -d /proc/$(cat /tmp/orphan); do usleep 50000; done; echo reaped`, "reaped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := vm.Output(ctx, "sh", "-c", tc.script)
			require.NoError(t, err)
			assert.Equal(t, tc.want, out)
		})
	}
	pid, err := vm.AddPod(ctx, "p1")
	require.NoError(t, err)
	assert.Positive(t, pid)
	res, err := vm.RunIn(ctx, "p1", "ip", "-br", "link")
	require.NoError(t, err)
	require.NoError(t, res.Err())
	require.NoError(t, vm.RemovePod(ctx, "p1"))
}
