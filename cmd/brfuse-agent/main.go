// Command brfuse-agent runs in a virtual machine: it moves the vNICs that the
// hypervisor plugs into the network namespaces of pods, on the word of brfused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/logging"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := serve(ctx, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintf(os.Stderr, "brfuse-agent: %v\n", err)
		return 1
	}
}

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("brfuse-agent", flag.ContinueOnError)
	channel := flags.String("channel", agentd.DefaultChannel, "virtio-serial port's name, vsock:PORT, or unix:PATH")
	format := flags.String("log-format", "text", "text or json")
	version := flags.Bool("version", false, "print the version and exit")
	var level slog.Level
	flags.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *version {
		fmt.Println("brfuse-agent version", buildinfo.Version())
		return nil
	}
	log, err := logging.New(os.Stderr, *format, level)
	if err != nil {
		return err
	}
	return agentd.Serve(ctx, *channel, guestside.Config{Log: log}, buildinfo.Version())
}
