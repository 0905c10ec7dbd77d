// Command brfuse is the client of brfused: it gives pods in virtual machines
// their own virtio NICs. See `brfuse --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/brfuse/brfuse/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := cli.Main{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	return m.Run(ctx)
}
