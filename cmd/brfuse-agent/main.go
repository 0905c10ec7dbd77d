// Command brfuse-agent runs in a virtual machine: it moves the vNICs that the
// hypervisor plugs into the network namespaces of pods, on the word of brfused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/agentd"
	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 also when ctx ended, which is how the agent is
// told to stop.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := serve(ctx, args, stdout, stderr)
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintf(stderr, "brfuse-agent: %v\n", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// errUsage is returned when the arguments make no sense.
var errUsage = errors.New("see brfuse-agent -h")

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("brfuse-agent", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what is wrong is said once, by run
	channel := flags.String("channel", agentd.DefaultChannel, "virtio-serial port's name, vsock:PORT, or unix:PATH")
	format := flags.String("log-format", "text", "text or json")
	version := flags.Bool("version", false, "print the version and exit")
	var level slog.Level
	flags.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return nil
	case err != nil:
		return fmt.Errorf("%w; %w", err, errUsage)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), errUsage)
	case *version:
		fmt.Fprintln(stdout, "brfuse-agent version", buildinfo.Version())
		return nil
	}
	log, err := logging.New(stderr, *format, level)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	return agentd.Serve(ctx, *channel, guestside.Config{Log: log}, buildinfo.Version())
}
