package insn

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of the file, as plugin.c has it.
const (
	maxCPUs     = 64
	counterSize = 64 // bytes of a vCPU's counter, which are its first 8
	fileSize    = maxCPUs * counterSize
)

// Counter counts the instructions that one QEMU's guest executes, on all of its
// vCPUs, user's and kernel's together. A restarted QEMU goes on counting where
// the one before has stopped. It is safe for concurrent use until it is closed.
type Counter struct {
	plugin string
	path   string
	mem    []byte
}

// NewCounter makes a counter for the guest that gets [Counter.QEMUArgs]. It makes
// a file in dir, by which QEMU tells. plugin is what [Build] returned; neither
// path may have a comma in it, which ends an argument of QEMU.
func NewCounter(plugin, dir string) (*Counter, error) {
	c := &Counter{plugin: plugin}
	if err := c.open(dir); err != nil {
		return nil, fmt.Errorf("make an instruction counter: %w", err)
	}
	return c, nil
}

func (c *Counter) open(dir string) error {
	f, err := os.CreateTemp(dir, "insn-*")
	if err != nil {
		return err
	}
	defer f.Close() // the mapping stays
	c.path = f.Name()
	err = f.Truncate(fileSize)
	if err == nil {
		c.mem, err = unix.Mmap(int(f.Fd()), 0, fileSize, unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		os.Remove(c.path)
	}
	return err
}

// QEMUArgs returns the arguments by which QEMU counts. Its accelerator has to be
// tcg.
func (c *Counter) QEMUArgs() []string {
	return []string{"-plugin", c.plugin + ",counters=" + c.path}
}

// Read returns how many instructions the guest has executed since its start. It
// takes some nanoseconds, and the guest doesn't notice. A block of instructions
// counts when it begins, as a whole: an exception in its middle makes the figure
// too large by what is left of the block.
func (c *Counter) Read() uint64 {
	var sum uint64
	for cpu := range maxCPUs {
		sum += atomic.LoadUint64((*uint64)(unsafe.Pointer(&c.mem[cpu*counterSize])))
	}
	return sum
}

// Close removes the file. QEMU may go on running.
func (c *Counter) Close() error {
	if c.mem == nil {
		return nil
	}
	err := unix.Munmap(c.mem)
	c.mem = nil
	if rmErr := os.Remove(c.path); err == nil {
		err = rmErr
	}
	if err != nil {
		return fmt.Errorf("close an instruction counter: %w", err)
	}
	return nil
}
