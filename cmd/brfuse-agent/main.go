// Command brfuse-agent runs in a virtual machine: it moves the vNICs that the
// hypervisor plugs into the network namespaces of pods, on the word of brfused,
// and asks brfused for vNICs on the word of the VM's container engines.
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
	"github.com/brfuse/brfuse/guestside/bench"
	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/cnid"
	"github.com/brfuse/brfuse/guestside/docker"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/internal/buildinfo"
	"github.com/brfuse/brfuse/internal/logging"
	"github.com/brfuse/brfuse/vnic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := start(ctx)
	stop()
	os.Exit(code)
}

// start runs the agent, or what the agent starts to measure.
func start(ctx context.Context) int {
	if len(os.Args) == 2 && os.Args[1] == bench.WorkerArg {
		return bench.Main(ctx)
	}
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
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
	var engines doors
	flags.StringVar(&engines.cniSocket, "cni-socket", cniapi.DefaultSocket, "where brfuse-cni finds the agent; empty: no CNI")
	flags.StringVar(&engines.dockerPlugin, "docker-plugin", docker.DefaultSocket, "where dockerd finds the driver brfuse; empty: no Docker")
	flags.StringVar(&engines.state, "state", "/var/lib/brfuse", "folder of what the Docker driver has to remember")
	flags.StringVar(&engines.network, "network", "", "network of containers whose configuration names none (default: the only one that this VM may ask for)")
	noBench := flags.Bool("no-bench", false, "refuse to measure this VM's network when `brfuse bench` on the hypervisor asks for it")
	normalRCU := flags.Bool("normal-rcu", false, "leave /sys/kernel/rcu_expedited alone, which is on while a vNIC is moved")
	format := flags.String("log-format", "text", "text or json")
	version := flags.Bool("version", false, "print the version and exit")
	installing := installFlags(flags)
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
	case engines.network != "" && vnic.CheckNetworkName(engines.network) != nil:
		return fmt.Errorf("%w; %w", vnic.CheckNetworkName(engines.network), errUsage)
	case *version:
		fmt.Fprintln(stdout, "brfuse-agent version", buildinfo.Version())
		return nil
	case installing.Dir != "":
		return runInstall(*installing)
	case installing.Conflist != "":
		return fmt.Errorf("-install-conflist is only for -install; %w", errUsage)
	}
	log, err := logging.New(stderr, *format, level)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	return agentd.Serve(ctx, agentd.Setup{
		Channel: *channel, Agent: guestside.Config{NormalRCU: *normalRCU}, NoBench: *noBench,
		Doors: engines.list(log), Version: buildinfo.Version(), Log: log,
	})
}

// doors says where container engines ask for vNICs.
type doors struct {
	cniSocket, dockerPlugin, state, network string
}

func (d doors) list(log *slog.Logger) (list []agentd.Door) {
	if d.cniSocket != "" {
		list = append(list, agentd.Door{Name: "cni", Open: func(h *hostclient.Client, a *guestside.Agent) (agentd.FrontDoor, error) {
			return cnid.New(cnid.Config{Socket: d.cniSocket, Host: h, Agent: a, Network: d.network, Log: log}), nil
		}})
	}
	if d.dockerPlugin != "" {
		list = append(list, agentd.Door{Name: "docker", Open: func(h *hostclient.Client, a *guestside.Agent) (agentd.FrontDoor, error) {
			driver, err := docker.New(docker.Config{Socket: d.dockerPlugin, Host: h, Agent: a, StateDir: d.state, Network: d.network, Log: log})
			if err != nil {
				return nil, err // not a nil pointer in the interface
			}
			return driver, nil
		}})
	}
	return list
}
