package netcost

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is the CPU time of a process, in seconds.
type Process struct {
	PID    int     `json:"pid"`
	Name   string  `json:"name"`
	User   float64 `json:"user"` // in virtual machines too; threads that have ended included
	System float64 `json:"system"`
	// Threads are the time of those threads that still run, by class: "vcpu", "main",
	// "iothread", "vhost", and "other". QEMU tells its threads apart only with
	// -name NAME,debug-threads=on, as libvirt starts it; without, all but the first
	// are "other".
	Threads map[string]float64 `json:"threads"`
	// Vhost is the time of the kernel's threads that serve this process's NICs: since
	// Linux 6.4 they are threads of the process itself and in Threads too.
	Vhost float64 `json:"vhost"`
}

// Total returns the seconds of all threads that still run: more exact than User and
// System where the kernel has schedstat.
func (p Process) Total() float64 {
	var sum float64
	for _, t := range p.Threads {
		sum += t
	}
	return sum
}

func (c *Counters) readProcesses(proc fs.FS, pids []int, vhost bool) error {
	for _, pid := range pids {
		p, err := readProcess(proc, pid)
		if err != nil {
			return fmt.Errorf("count cpu time of process %d: %w", pid, gone(err))
		}
		c.Processes = append(c.Processes, p)
	}
	if !vhost || len(pids) == 0 {
		return nil
	}
	outside, err := vhostThreads(proc)
	if err != nil {
		return fmt.Errorf("look for vhost threads: %w", err)
	}
	for i := range c.Processes {
		c.Processes[i].Vhost += outside[c.Processes[i].PID]
	}
	return nil
}

// gone makes the error of reading about a process that has just ended a
// [fs.ErrNotExist].
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func readProcess(proc fs.FS, pid int) (Process, error) {
	dir := strconv.Itoa(pid)
	main, err := readTask(proc, dir)
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Name: main.name, User: main.user, System: main.system, Threads: map[string]float64{}}
	tasks, err := fs.ReadDir(proc, path.Join(dir, "task"))
	if err != nil {
		return Process{}, err
	}
	for _, e := range tasks {
		t, err := readTask(proc, path.Join(dir, "task", e.Name()))
		if errors.Is(gone(err), fs.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return Process{}, err
		}
		class := threadClass(t.name, e.Name() == dir)
		p.Threads[class] += t.seconds
		if class == classVhost {
			p.Vhost += t.seconds
		}
	}
	return p, nil
}

const classVhost = "vhost"

// threadClass says what a thread of QEMU is for by the name that QEMU gives it.
func threadClass(name string, main bool) string {
	switch {
	case main:
		return "main"
	case strings.HasPrefix(name, "vhost-"):
		return classVhost
	case strings.HasPrefix(name, "CPU ") || strings.HasPrefix(name, "ALL CPUs"):
		return "vcpu"
	case strings.HasPrefix(name, "IO "):
		return "iothread"
	}
	return "other"
}

// vhostThreads returns the seconds of the kernel threads vhost-PID by that PID.
func vhostThreads(proc fs.FS) (map[int]float64, error) {
	all, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, err
	}
	seconds := map[int]float64{}
	for _, e := range all {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		t, err := readTask(proc, e.Name())
		if errors.Is(gone(err), fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if of, ok := strings.CutPrefix(t.name, "vhost-"); ok {
			if pid, err := strconv.Atoi(of); err == nil {
				seconds[pid] += t.seconds
			}
		}
	}
	return seconds, nil
}

// task is what a process or thread has used, in seconds.
type task struct {
	name         string
	user, system float64
	seconds      float64 // both, by the scheduler's clock if it tells
}

func readTask(proc fs.FS, dir string) (task, error) {
	b, err := fs.ReadFile(proc, path.Join(dir, "stat"))
	if err != nil {
		return task{}, err
	}
	t, err := parseTask(b)
	if err != nil {
		return task{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	b, err = fs.ReadFile(proc, path.Join(dir, "schedstat"))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil // a kernel without CONFIG_SCHED_INFO, or the thread has ended
	}
	if err != nil {
		return task{}, err
	}
	if t.seconds, err = parseSchedstat(b); err != nil {
		return task{}, fmt.Errorf("%s/schedstat: %w", dir, err)
	}
	return t, nil
}

// parseTask reads /proc/PID/stat. The name is in brackets and may have any character.
func parseTask(b []byte) (task, error) {
	const utime, stime = 11, 12 // from the field behind the name (proc(5): 14 and 15 of all)
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return task{}, fmt.Errorf("no name in %d bytes", len(b))
	}
	t := task{name: string(b[from+1 : to])}
	f := bytes.Fields(b[to+1:])
	if len(f) <= stime {
		return task{}, fmt.Errorf("%d columns behind the name", len(f))
	}
	for i, v := range map[int]*float64{utime: &t.user, stime: &t.system} {
		n, err := strconv.ParseUint(string(f[i]), 10, 64)
		if err != nil {
			return task{}, err
		}
		*v = float64(n) / ticks
	}
	t.seconds = t.user + t.system
	return t, nil
}

// parseSchedstat reads /proc/PID/schedstat: nanoseconds on a CPU, nanoseconds
// waiting for one, and how often.
func parseSchedstat(b []byte) (float64, error) {
	f := bytes.Fields(b)
	if len(f) == 0 {
		return 0, errors.New("empty")
	}
	n, err := strconv.ParseUint(string(f[0]), 10, 64)
	return float64(n) / 1e9, err
}

func (p Process) since(e Process) Process {
	d := p
	d.User, d.System, d.Vhost = max(0, p.User-e.User), max(0, p.System-e.System), max(0, p.Vhost-e.Vhost)
	d.Threads = map[string]float64{}
	for class, t := range p.Threads {
		d.Threads[class] = max(0, t-e.Threads[class])
	}
	return d
}
