package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) publish() *cobra.Command {
	var s brfusev1.Service
	var port string
	var to []string
	c := &cobra.Command{
		Use:   "publish --port PORT:TARGET[/PROTOCOL] --to POD|LABEL=VALUE",
		Short: "Lead a port of the hypervisors to pods",
		Long: `publish makes a port of pods reachable by a port of the hypervisors. With mode
ingress every hypervisor answers and shares connections among all ready pods; those
of pods elsewhere come from the hypervisor's own address in the network. With mode host
only hypervisors that a pod of it is on answer, and the client's address is kept.
To publish the same again is no error.`,
		Example: `  brfuse publish --network blue --port 8080:80/tcp --to web
  brfuse publish --network blue --port 5353:53/udp --to app=dns --to tier=edge --mode host`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := parsePublish(&s, port, to); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Publish(ctx, &brfusev1.PublishRequest{Service: &s})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { serviceTable(w, []*brfusev1.Service{got}) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&s.Network, "network", "", "network of the pods (default: the only one)")
	f.StringVar(&port, "port", "", "port of the hypervisors and port of the pods, such as 8080:80/tcp (required)")
	f.StringArrayVar(&to, "to", nil, "pod's name, or a label that the pods have; several labels must all be there (required)")
	f.StringVar(&s.Mode, "mode", "", "ingress or host (default ingress)")
	f.StringVar(&s.Name, "name", "", "service's name (default: PORT-PROTOCOL)")
	return c
}

// parsePublish reads what publish is told.
func parsePublish(s *brfusev1.Service, port string, to []string) error {
	if port == "" || len(to) == 0 {
		return usagef("publish needs --port and --to; see `brfuse publish --help`")
	}
	ports, protocol, ok := strings.Cut(port, "/")
	if s.Protocol = protocol; !ok {
		s.Protocol = "tcp"
	}
	host, target, ok := strings.Cut(ports, ":")
	if !ok {
		target = host
	}
	for _, p := range []struct {
		text string
		to   *uint32
	}{{host, &s.Port}, {target, &s.Target}} {
		n, err := strconv.ParseUint(p.text, 10, 16)
		if err != nil || n == 0 {
			return usagef("--port %q: give ports in 1-65535, such as 8080:80/tcp", port)
		}
		*p.to = uint32(n)
	}
	for _, t := range to {
		key, value, isLabel := strings.Cut(t, "=")
		switch {
		case !isLabel && (s.GetPod() != "" || len(s.GetLabels()) > 0), isLabel && s.GetPod() != "":
			return usagef("--to: give one pod's name, or labels")
		case !isLabel:
			s.Pod = t
		default:
			if s.Labels == nil {
				s.Labels = map[string]string{}
			}
			s.Labels[key] = value
		}
	}
	return nil
}

func (a *app) services() *cobra.Command {
	return &cobra.Command{
		Use:   "services",
		Short: "List published ports of pods",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.ListServices(ctx, &brfusev1.ListServicesRequest{})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { serviceTable(w, got.GetServices()) })
			})
		},
	}
}

func (a *app) unpublish() *cobra.Command {
	return &cobra.Command{
		Use:   "unpublish NAME",
		Short: "End a service that publish made",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Unpublish(ctx, &brfusev1.UnpublishRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { fmt.Fprintf(w, "unpublished service %s\n", args[0]) })
			})
		},
	}
}

func serviceTable(w *tabwriter.Writer, services []*brfusev1.Service) {
	fmt.Fprintln(w, "NAME\tNETWORK\tPORT\tTARGET\tTO\tMODE\tREADY")
	for _, s := range services {
		to := s.GetPod()
		if to == "" {
			var labels []string
			for _, k := range slices.Sorted(maps.Keys(s.GetLabels())) {
				labels = append(labels, k+"="+s.GetLabels()[k])
			}
			to = strings.Join(labels, ",")
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%s\t%d\t%s\t%s\t%d\n", s.GetName(), s.GetNetwork(), s.GetPort(), s.GetProtocol(), s.GetTarget(), to,
			s.GetMode(), s.GetReady())
	}
}
