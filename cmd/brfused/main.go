// Command brfused is the daemon on a hypervisor: it plugs vNICs into virtual
// machines and has their agents move them into pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/cli"
	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/internal/logging"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "brfused: %v\n", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	cfg := daemon.Config{PublishPorts: daemon.DefaultPublishPorts}
	var level slog.Level
	var format string
	c := &cobra.Command{
		Use:           "brfused",
		Short:         "Plug vNICs into virtual machines for their pods",
		Version:       buildinfo.Version(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logging.New(os.Stderr, format, level)
			if err != nil {
				return err
			}
			cfg.Log = log
			return daemon.Run(c.Context(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Socket, "socket", cli.DefaultSocket, "unix socket of the API")
	f.StringVar(&cfg.Group, "socket-group", "", "group that may use the socket beside root")
	f.StringVar(&cfg.State, "state", "/var/lib/brfuse/brfuse.db", "database file")
	f.TextVar(&cfg.PublishPorts, "publish-ports", cfg.PublishPorts, `ports of this host that guests may have published, FIRST-LAST or "none"`)
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.StringVar(&format, "log-format", "text", "text or json")
	return c
}
