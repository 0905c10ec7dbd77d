// Package insn counts the instructions that a guest executes under QEMU's
// emulator: a figure of what a packet costs the guest that a busy machine can't
// move.
//
// QEMU takes a plugin, which [Build] compiles. A [Counter] has it count for one
// guest, and can be read at any time:
//
//	plugin, err := insn.Build(ctx, dir)
//	c, err := insn.NewCounter(plugin, dir)
//	defer c.Close()
//	// boot a guest with c.QEMUArgs()
//	before := c.Read()
//	// have it do something
//	fmt.Println(c.Read() - before)
//
// All that the guest does counts, its timer ticks too. It needs gcc, and a QEMU
// with plugins, as distributions build it; the guest must not run under KVM.
package insn

import (
	"bytes"
	"context"
	_ "embed" // the plugin
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed plugin/plugin.c
var source []byte

// Build compiles the plugin into a file in dir and returns its path. It takes a
// tenth of a second. The errors are those of [Compile].
func Build(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "insn.so")
	return file, Compile(ctx, file, source, "-shared", "-fPIC")
}

// Compile compiles a C program into file. The error is [exec.ErrNotFound] where
// there is no gcc.
func Compile(ctx context.Context, file string, source []byte, flags ...string) error {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return fmt.Errorf("compile %s: %w; install gcc and libc6-dev", filepath.Base(file), err)
	}
	args := append([]string{"-O2", "-Wall", "-Wextra"}, flags...)
	cmd := exec.CommandContext(ctx, gcc, append(args, "-x", "c", "-o", file, "-")...)
	cmd.Stdin = bytes.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s (it needs libc6-dev): %w: %s", filepath.Base(file), err, strings.TrimSpace(string(out)))
	}
	return nil
}
