package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) attach() *cobra.Command {
	var req brfusev1.AttachRequest
	var file string
	c := &cobra.Command{
		Use:   "attach --vm VM --pod NAME | --container C --runtime R [--network N]",
		Short: "Give a pod its own vNIC",
		Long: `attach gives a pod its own vNIC, and returns when the pod has it. When any step
fails, all steps before it are undone. To attach the same again is no error: the
answer is the attachment there is.

A pod is told by its name and network namespace, or by a container of it that runs:
docker's, containerd's or podman's, by its ID, the beginning of it, or its name.`,
		Example: `  brfuse attach --pod web --vm vm1 --network blue
  brfuse attach --pod web --vm vm1 --network green --ifname eth1 --no-default-route
  brfuse attach --pod web --vm vm1 --network blue --netns 4711 --ip 10.9.0.7 -o json
  brfuse attach --container web-1 --runtime docker --vm vm1 --network blue --ifname net1`,
		RunE: func(c *cobra.Command, _ []string) error {
			if file != "" {
				if err := a.readRequest(file, &req); err != nil {
					return err
				}
			}
			if (req.GetPod() == "") == (req.GetContainer() == "") || req.GetVm() == "" {
				return usagef("attach needs --vm, and either --pod or --container; see `brfuse attach --help`")
			}
			if (req.GetContainer() == "") != (req.GetRuntime() == "") {
				return usagef("--container and --runtime go together; see `brfuse attach --help`")
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Attach(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { attachTable(w, got) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Pod, "pod", "", "pod's name")
	f.StringVar(&req.Vm, "vm", "", "VM that the pod runs in (required)")
	f.StringVar(&req.Network, "network", "", "network (default: the only one there is)")
	f.StringVar(&req.Interface, "ifname", "", "interface name in the pod (default eth0)")
	f.StringSliceVar(&req.Addresses, "ip", nil, "wanted address, at most one a family (default: any free one)")
	f.StringVar(&req.Mac, "mac", "", "wanted MAC (default: a random one)")
	f.StringVar(&req.Netns, "netns", "", "the pod's network namespace in the guest: a name in /run/netns, a path, or a pid (default: the pod's name)")
	f.Uint32Var(&req.Queues, "queues", 0, "queue pairs (default 1)")
	f.Uint32Var(&req.Mtu, "mtu", 0, "MTU in bytes (default: the network's)")
	f.StringVar(&req.Container, "container", "", "container of the pod, instead of --pod and --netns")
	f.StringVar(&req.Runtime, "runtime", "", "engine of the container: docker, containerd or podman")
	f.BoolVar(&req.NoDefaultRoute, "no-default-route", false, "leave out the default routes; for all but one interface of a pod")
	f.StringToStringVar(&req.Labels, "label", nil, "label of the pod as KEY=VALUE, for services to select it by")
	f.StringVarP(&file, "file", "f", "", "read the request as JSON from this file, '-' for standard input; flags are ignored")
	return c
}

// readRequest reads an AttachRequest in proto3's JSON. Unknown fields are errors.
func (a *app) readRequest(file string, req *brfusev1.AttachRequest) error {
	raw, err := readFile(a.main.Stdin, file)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	*req = brfusev1.AttachRequest{}
	if err := protojson.Unmarshal(raw, req); err != nil {
		return usagef("request %s is not the JSON of an attach request, such as "+
			`{"vm":"vm1","pod":"web","network":"blue"}: %w`, file, err)
	}
	return nil
}

// maxRequest is far more than a request needs, in bytes.
const maxRequest = 1 << 20

func readFile(stdin io.Reader, file string) ([]byte, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return io.ReadAll(io.LimitReader(r, maxRequest))
}

func attachTable(w *tabwriter.Writer, m *brfusev1.Attachment) {
	fmt.Fprintf(w, "attachment\t%s\n", m.GetId())
	fmt.Fprintf(w, "pod\t%s %s in %s\n", m.GetPod(), m.GetInterface(), m.GetVm())
	fmt.Fprintf(w, "network\t%s\n", m.GetNetwork())
	fmt.Fprintf(w, "addresses\t%s\n", join(m.GetAddresses()))
	fmt.Fprintf(w, "mac\t%s\n", orDash(m.GetMac()))
	fmt.Fprintf(w, "tap\t%s\n", m.GetTap())
	fmt.Fprintf(w, "slot\t%s (%s in the guest)\n", orDash(m.GetSlot()), orDash(m.GetGuestPci()))
	fmt.Fprintf(w, "phase\t%s\n", m.GetPhase())
	extraTable(w, m)
	for _, t := range m.GetTimings() {
		fmt.Fprintf(w, "  %s\t%.1f ms\n", t.GetStep(), float64(t.GetDuration().AsDuration())/float64(time.Millisecond))
	}
}

func (a *app) detach() *cobra.Command {
	var req brfusev1.DetachRequest
	c := &cobra.Command{
		Use:   "detach --pod NAME [--vm VM] [--ifname NAME] | --container C --runtime R --vm VM [--ifname NAME] | --id ID",
		Short: "Take vNICs away from a pod",
		Long: `detach takes a pod's vNICs away, or just one of them. It returns when the device,
the tap and the lease are given back. When there is none, it succeeds.

With --container it takes away what attach --container gave, not what an engine in
the VM asked for; the container may have ended.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if count(req.GetPod(), req.GetId(), req.GetContainer()) != 1 {
				return usagef("detach needs one of --pod, --container and --id; see `brfuse detach --help`")
			}
			if req.GetContainer() != "" && (req.GetRuntime() == "" || req.GetVm() == "") || req.GetContainer() == "" && req.GetRuntime() != "" {
				return usagef("--container goes with --runtime and --vm; see `brfuse detach --help`")
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Detach(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) {
					for _, m := range got.GetDetached() {
						fmt.Fprintf(w, "detached\t%s\t%s %s in %s\n", m.GetId(), m.GetPod(), m.GetInterface(), m.GetVm())
					}
					if len(got.GetDetached()) == 0 {
						fmt.Fprintln(w, "nothing to detach")
					}
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Pod, "pod", "", "pod's name")
	f.StringVar(&req.Vm, "vm", "", "VM of the pod (default: the one that has it, if only one has)")
	f.StringVar(&req.Interface, "ifname", "", "interface (default: all of the pod)")
	f.StringVar(&req.Id, "id", "", "attachment's id")
	f.StringVar(&req.Container, "container", "", "container of the pod, instead of --pod")
	f.StringVar(&req.Runtime, "runtime", "", "engine of the container: docker, containerd or podman")
	return c
}

// count returns how many of the strings are not empty.
func count(list ...string) (n int) {
	for _, s := range list {
		if s != "" {
			n++
		}
	}
	return n
}

func (a *app) list() *cobra.Command {
	var req brfusev1.ListRequest
	var watch bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List attachments",
		RunE: func(c *cobra.Command, _ []string) error {
			if watch && req.GetAll() {
				return usagef("--watch is of one hypervisor: leave --all out")
			}
			if watch {
				return a.watch(c.Context())
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.List(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { listTable(w, got.GetAttachments(), req.GetAll()) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vm, "vm", "", "only of this VM")
	f.StringVar(&req.Pod, "pod", "", "only of this pod")
	f.StringVar(&req.Network, "network", "", "only of this network")
	f.BoolVar(&req.All, "all", false, "of all hypervisors that share the store, not of this one alone")
	f.BoolVarP(&watch, "watch", "w", false, "print each change, one a line, until interrupted or --timeout")
	return c
}

// watch prints changes until the context, the timeout or the daemon ends it.
func (a *app) watch(ctx context.Context) error {
	return a.call(ctx, func(ctx context.Context, cl brfusev1.BrfuseClient) error {
		stream, err := cl.Watch(ctx, &brfusev1.WatchRequest{})
		if err != nil {
			return err
		}
		for {
			ev, err := stream.Recv()
			if c := status.Code(err); errors.Is(err, io.EOF) || c == codes.DeadlineExceeded || c == codes.Canceled {
				return nil
			}
			if err != nil {
				return err
			}
			m := ev.GetAttachment()
			if err := a.print(m, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "%s\t%s\t%s/%s/%s\t%s\n", m.GetId(), m.GetPhase(), m.GetVm(), m.GetPod(), m.GetInterface(), join(m.GetAddresses()))
			}); err != nil {
				return err
			}
		}
	})
}

func (a *app) get() *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show one attachment with its timings",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Get(ctx, &brfusev1.GetRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { attachTable(w, got) })
			})
		},
	}
}
