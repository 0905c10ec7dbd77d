package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// guestPath puts /sbin first, where the image has programs of Debian's that
// busybox has smaller ones of.
const guestPath = "/sbin:/usr/sbin:/bin:/usr/bin"

// boot sets the guest up, starts the server and then reaps until it ends.
// When it ends or boot fails, the guest is turned off.
func boot() error {
	err := setUp()
	if err == nil {
		err = supervise()
	}
	fmt.Fprintln(os.Stderr, "guestinit:", err)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func setUp() error {
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModules("/etc/modules"); err != nil {
		return err
	}
	if err := moveToDisk(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if name, ok := cmdline("brfuse.name"); ok {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("set hostname %s: %w", name, err)
		}
	}
	return os.Setenv("PATH", guestPath)
}

func mountAll() error {
	for _, m := range []struct{ fstype, target string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/run"},
		{"tmpfs", "/tmp"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	if err := delegateCgroups("/sys/fs/cgroup"); err != nil {
		return err
	}
	return os.MkdirAll(logDir, 0o755)
}

// delegateCgroups lets the children of the first cgroup use all controllers.
func delegateCgroups(dir string) error {
	b, err := os.ReadFile(dir + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	for name := range strings.FieldsSeq(string(b)) {
		if err := os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("enable cgroup controller %s: %w", name, err)
		}
	}
	return nil
}

// loadModules loads the files that list names, in its order.
func loadModules(list string) error {
	b, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read module list: %w", err)
	}
	for path := range strings.FieldsSeq(string(b)) {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// supervise starts the server and reaps every child and orphan. It returns
// when the server has ended.
func supervise() error {
	server, err := os.StartProcess(self, []string{"labserve"}, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		case pid == server.Pid:
			return fmt.Errorf("server ended with status %#x", uint32(status))
		}
	}
}

// cmdline returns the value of key=value on the kernel's command line.
func cmdline(key string) (string, bool) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	for word := range strings.FieldsSeq(string(b)) {
		if v, ok := strings.CutPrefix(word, key+"="); ok {
			return v, true
		}
	}
	return "", false
}
