// Command brfused is the daemon on a hypervisor: it plugs vNICs into virtual
// machines and has their agents move them into pods.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/cli"
	"github.com/brfuse/brfuse/internal/daemon"
	"github.com/brfuse/brfuse/internal/logging"
)

const defaultState = "/var/lib/brfuse/brfuse.db"

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
			if c.Flags().Changed("state") && cfg.Cluster.Store != "" {
				return errors.New("give --state or --store: the state is in a file, or in a store that hypervisors share; brfused copy-store brings it from one to the other")
			}
			log, err := logging.New(os.Stderr, format, level)
			if err != nil {
				return err
			}
			cfg.Log = log
			return daemon.Run(c.Context(), cfg)
		},
	}
	c.AddCommand(copyStore())
	f := c.Flags()
	f.StringVar(&cfg.Socket, "socket", cli.DefaultSocket, "unix socket of the API")
	f.StringVar(&cfg.Group, "socket-group", "", "group that may use the socket beside root")
	f.StringVar(&cfg.State, "state", defaultState, "database file")
	f.StringVar(&cfg.Cluster.Store, "store", "", "URL of a store that hypervisors share, etcd://HOST:PORT[,HOST:PORT...] or etcds:// for TLS, instead of --state")
	f.StringVar(&cfg.Cluster.Hypervisor, "hypervisor", "", "this hypervisor's name among those that share a store (default: the host's name)")
	f.TextVar(&cfg.Cluster.Underlay, "underlay", netip.Addr{}, "this hypervisor's address that overlay networks' frames are sent to")
	f.DurationVar(&cfg.Cluster.ReleaseAfter, "release-dead", time.Hour, "how long another hypervisor may be dead before what it holds is released; 0: for ever")
	f.StringVar(&cfg.Names, "names", "brfuse.internal", `domain of the pods' names, which are served on the gateways: POD.NETWORK.DOMAIN; "none" serves none`)
	f.TextVar(&cfg.PublishPorts, "publish-ports", cfg.PublishPorts, `ports of this host that guests may have published, FIRST-LAST or "none"`)
	f.StringVar(&cfg.APIListen, "api-listen", "", "HOST:PORT where the API is served over TCP too, by which other hypervisors reach this one; needs --tls-*")
	f.StringVar(&cfg.TLS.Cert, "tls-cert", "", "PEM file of the daemon's certificate; it is read anew when it changes, as the next two")
	f.StringVar(&cfg.TLS.Key, "tls-key", "", "PEM file of the certificate's key")
	f.StringVar(&cfg.TLS.CA, "tls-ca", "", "PEM file of the CA that signs the certificates of all daemons and clients")
	f.StringVar(&cfg.Metrics, "metrics", "", "HOST:PORT or unix:PATH where numbers are served to Prometheus at /metrics, to whoever reaches it, and /healthz")
	f.StringVar(&cfg.OTLPEndpoint, "otlp-endpoint", "", "http://HOST:PORT, or https://HOST:PORT for TLS, of an OpenTelemetry collector that traces are sent to by gRPC (default: what OTEL_EXPORTER_OTLP_ENDPOINT says)")
	f.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.StringVar(&format, "log-format", "text", "text or json")
	return c
}

// copyStore is for a hypervisor that begins to share its store.
func copyStore() *cobra.Command {
	var cfg daemon.Config
	c := &cobra.Command{
		Use:   "copy-store --store URL --hypervisor NAME",
		Short: "Copy the database of this hypervisor into a store that several share",
		Long: `copy-store copies the database into an empty etcd. brfused is stopped meanwhile; pods
run on. Then it is started with --store and --hypervisor, as here, instead of --state.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Log = slog.New(slog.DiscardHandler)
			n, err := daemon.CopyStore(c.Context(), cfg)
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "copied %d keys of %s as hypervisor %s\n", n, cfg.State, cfg.Cluster.Hypervisor)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.State, "state", defaultState, "database file")
	f.StringVar(&cfg.Cluster.Store, "store", "", "URL of the store to copy into, as of brfused (required)")
	f.StringVar(&cfg.Cluster.Hypervisor, "hypervisor", "", "this hypervisor's name there (required)")
	return c
}
