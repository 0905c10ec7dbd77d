// Command overlay gives two pods on different hypervisors one network: it makes an
// overlay and attaches a pod of each VM to it, by the API of one daemon alone, which
// forwards what is another's. It takes all of it away again when it is interrupted.
//
//	overlay -socket /run/brfuse/brfused.sock vm1/web vm2/db
//
// The hypervisors share a store, and each VM is registered on its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

// network is the example's own.
var network = &brfusev1.Network{
	Name: "example", Kind: "overlay", Subnets: []string{"10.230.0.0/24", "fd00:230::/64"}, Masquerade: true,
}

func main() {
	socket := flag.String("socket", "/run/brfuse/brfused.sock", "unix socket of a brfused")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conn, err := grpc.NewClient("unix:"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		err = run(ctx, brfusev1.NewBrfuseClient(conn), flag.Args(), os.Stdout)
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
}

// run attaches pods, each VM/POD, and detaches them when ctx ends.
func run(ctx context.Context, daemon brfusev1.BrfuseClient, pods []string, out io.Writer) (err error) {
	hosts, err := daemon.ListHypervisors(ctx, &brfusev1.ListHypervisorsRequest{})
	if err != nil {
		return err
	}
	for _, h := range hosts.GetHypervisors() {
		fmt.Fprintf(out, "hypervisor %s is %s at %s\n", h.GetName(), h.GetState(), h.GetUnderlay())
	}
	n, err := daemon.CreateNetwork(ctx, &brfusev1.CreateNetworkRequest{Network: network})
	if err != nil {
		return err
	}
	var ids []string
	defer func() { err = errors.Join(err, undo(ctx, daemon, ids)) }()
	fmt.Fprintf(out, "network %s has vni %d and mtu %d\n", n.GetName(), n.GetVni(), n.GetMtu())
	for _, p := range pods {
		vm, pod, _ := strings.Cut(p, "/")
		a, err := daemon.Attach(ctx, &brfusev1.AttachRequest{Vm: vm, Pod: pod, Network: n.GetName()})
		if err != nil {
			return fmt.Errorf("pod %s: %w", p, err)
		}
		ids = append(ids, a.GetId())
		fmt.Fprintf(out, "pod %s has %s\n", p, strings.Join(a.GetAddresses(), " and "))
	}
	all, err := daemon.List(ctx, &brfusev1.ListRequest{Network: n.GetName(), All: true})
	if err != nil {
		return err
	}
	for _, a := range all.GetAttachments() {
		fmt.Fprintf(out, "pod %s/%s is on %s\n", a.GetVm(), a.GetPod(), a.GetHypervisor())
	}
	<-ctx.Done()
	return nil
}

// undo takes away what run made.
func undo(ctx context.Context, daemon brfusev1.BrfuseClient, ids []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, id := range ids {
		if _, err := daemon.Detach(ctx, &brfusev1.DetachRequest{Id: id}); err != nil {
			return err
		}
	}
	_, err := daemon.RemoveNetwork(ctx, &brfusev1.RemoveNetworkRequest{Name: network.GetName()})
	return err
}
