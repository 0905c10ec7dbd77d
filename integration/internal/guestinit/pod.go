package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns" // bind mounts of the pods' network namespaces, as iproute2 has them
	podDir   = "/run/pods"  // one file a pod: the pid of its process
	logDir   = "/run/log"
)

const podUsage = `usage: podctl add NAME [COMMAND...]  make a pod; its process is COMMAND, or a sleep
       podctl exec NAME COMMAND...    run COMMAND in the pod's network namespace
       podctl rm NAME                 kill the pod's process and remove its namespace's name`

func podctl(args []string) error {
	if len(args) < 2 || args[1] == "" || strings.Contains(args[1], "/") {
		return errors.New(podUsage)
	}
	name, rest := args[1], args[2:]
	switch {
	case args[0] == "add":
		return addPod(name, rest)
	case args[0] == "rm" && len(rest) == 0:
		return removePod(name)
	case args[0] == "exec" && len(rest) > 0:
		return execInPod(name, rest)
	default:
		return errors.New(podUsage)
	}
}

// execInPod runs a command in the pod's network namespace.
func execInPod(name string, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it ends with the caller's terminal or session
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := startIn(filepath.Join(netnsDir, name), cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// addPod makes the pod and prints its process's pid.
func addPod(name string, argv []string) error {
	if len(argv) == 0 {
		argv = []string{"sleep", "infinity"}
	}
	for _, dir := range []string{netnsDir, podDir, logDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	mount := filepath.Join(netnsDir, name)
	f, err := os.OpenFile(mount, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make pod %s: %w", name, err)
	}
	f.Close()
	pid, err := startPod(name, argv)
	if err == nil {
		err = os.WriteFile(filepath.Join(podDir, name), []byte(strconv.Itoa(pid)), 0o644)
	}
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), mount, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("make pod %s: %w", name, errors.Join(err, removePod(name)))
	}
	fmt.Println(pid)
	return nil
}

// startPod starts argv in a network namespace of its own and returns its pid
// once lo is up and argv has been executed.
func startPod(name string, argv []string) (int, error) {
	log, err := os.OpenFile(filepath.Join(logDir, "pod-"+name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.Command(self, argv...) //nolint:noctx // the pod outlives this process
	cmd.Args[0] = "pod"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, err
	}
	complaint, err := io.ReadAll(r) // ends when the pipe is closed by exec, or by death
	if err == nil && len(complaint) > 0 {
		err = errors.New(string(complaint))
	}
	return cmd.Process.Pid, err
}

// podMain is the pod's process before it becomes argv. Descriptor 3 is where
// it complains; a successful exec closes it.
func podMain(argv []string) error {
	pipe := os.NewFile(3, "pipe")
	unix.CloseOnExec(3)
	err := loopbackUp()
	if err == nil {
		var path string
		if path, err = exec.LookPath(argv[0]); err == nil {
			err = unix.Exec(path, argv, os.Environ())
		}
	}
	_, werr := fmt.Fprintf(pipe, "%v", err)
	return errors.Join(err, werr)
}

// removePod removes what is there of a pod. It returns when its process is gone.
func removePod(name string) error {
	var errs []error
	record := filepath.Join(podDir, name)
	if b, err := os.ReadFile(record); err == nil {
		pid, err := strconv.Atoi(string(b))
		errs = append(errs, err)
		if err == nil {
			errs = append(errs, killAndWait(pid), os.Remove(record))
		}
	}
	mount := filepath.Join(netnsDir, name)
	if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", mount, err))
	}
	if err := os.Remove(mount); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// killAndWait kills a process that need not be a child and waits for its end.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
