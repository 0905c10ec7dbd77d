package netload

import (
	"errors"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls that the runtime isn't told of: how many may be under way at once, and how many
// are. Each keeps a processor, and the rest of the process needs some.
var direct, underWay atomic.Int64

// Prepare has a process do little else than [Run] and [Listen], with so many flows
// at once at most. Main programs that are loads call it first; others must not.
//
// Go's runtime takes the processor (its P) from a loop that waits in a system call,
// and gives it back behind it. In an emulated guest that is several thousand
// instructions, a third of what a packet costs. So the loops of a prepared process
// don't tell the runtime that they wait. To stop such a process the garbage
// collector would have to wait until they are back, so there is none: what a run
// needs, about a MiB, stays until the process ends. And GOMAXPROCS is set to two more
// than flows, as each such loop keeps a processor; the runtime is told of those beyond.
//
// A prepared process is best started with GODEBUG=asyncpreemptoff=1 in its environment:
// it saves a signal every 10 ms of a loop. The setting is none that a //go:debug line
// takes.
func Prepare(flows int) {
	if want := flows + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	debug.SetGCPercent(-1)
	for {
		most := direct.Load()
		if int64(flows) <= most || direct.CompareAndSwap(most, int64(flows)) {
			return
		}
	}
}

// enter tells whether the next call is one that the runtime isn't told of; then leave
// has to follow it.
func enter() bool {
	most := direct.Load()
	if most == 0 {
		return false
	}
	if underWay.Add(1) <= most {
		return true
	}
	leave()
	return false
}

func leave() { underWay.Add(-1) }

// read is read(2).
func read(fd int, b []byte) (int, unix.Errno) {
	if enter() {
		return untold(unix.SYS_READ, fd, b)
	}
	n, err := unix.Read(fd, b)
	return n, errnoOf(err)
}

// write is write(2).
func write(fd int, b []byte) (int, unix.Errno) {
	if enter() {
		return untold(unix.SYS_WRITE, fd, b)
	}
	n, err := unix.Write(fd, b)
	return n, errnoOf(err)
}

// untold is a call that the runtime isn't told of. It follows enter.
func untold(trap uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	leave()
	runtime.KeepAlive(b)
	return int(n), errno
}

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}
