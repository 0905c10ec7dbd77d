package site

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/vnic"
)

// Brfuse runs the command line. A code other than 0 is no error.
func (s *Site) Brfuse(ctx context.Context, args ...string) (vmlab.Result, error) {
	return s.Net.Run(ctx, append([]string{s.brfuse, "--socket", s.Socket()}, args...)...)
}

// MustBrfuse runs the command line and returns its output; a code other than 0
// is an error.
func (s *Site) MustBrfuse(ctx context.Context, args ...string) (string, error) {
	res, err := s.Brfuse(ctx, args...)
	if err == nil {
		err = res.Err()
	}
	if err != nil {
		return res.Stdout, fmt.Errorf("brfuse %s: %w", strings.Join(args, " "), err)
	}
	return res.Stdout, nil
}

// BrfuseJSON runs the command line with -o json and decodes its output.
func (s *Site) BrfuseJSON(ctx context.Context, v any, args ...string) error {
	out, err := s.MustBrfuse(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// Client returns a client of the daemon.
func (s *Site) Client() (brfusev1.BrfuseClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		conn, err := grpc.NewClient("passthrough:///"+s.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			}))
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	return brfusev1.NewBrfuseClient(s.conn), nil
}

// AddVM registers a guest and waits until its agent is there.
func (s *Site) AddVM(ctx context.Context, vm *vmlab.VM) error {
	ref := vm.Ref()
	if _, err := s.MustBrfuse(ctx, append([]string{"vm", "add", ref.Name}, Flags(ref)...)...); err != nil {
		return err
	}
	return s.AwaitAgent(ctx, ref.Name)
}

// Flags returns those of `brfuse vm add` for a VM.
func Flags(ref vnic.VM) []string {
	if ref.Libvirt != "" {
		return []string{"--libvirt", ref.Libvirt} // its channel is in the domain's XML
	}
	return []string{"--qmp", ref.QMP, "--channel", ref.Channel}
}

// AwaitAgent waits until the daemon has a session with a guest's agent.
func (s *Site) AwaitAgent(ctx context.Context, vm string) error {
	return Until(ctx, "a session with the agent of "+vm, func(ctx context.Context) (bool, error) {
		cl, err := s.Client()
		if err != nil {
			return false, err
		}
		res, err := cl.ListVMs(ctx, &brfusev1.ListVMsRequest{})
		if err != nil {
			return false, err
		}
		for _, m := range res.GetVms() {
			if m.GetName() == vm {
				return m.GetState() == "running" && m.GetAgent() == "connected", nil
			}
		}
		return false, fmt.Errorf("vm %s is not registered", vm)
	})
}
