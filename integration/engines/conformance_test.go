package engines

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/cni/cnitest"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationConformance runs the table of CNI's rules in a guest, with the
// real agent, daemon and QEMU behind the plugin.
func TestIntegrationConformance(t *testing.T) {
	ctx, lab := openLab(t)
	programs := "/opt/cni/bin"
	o := site.Options{Dir: shortDir(t), AgentByHand: true, Image: vmlab.Image{Files: map[string]string{}, Modules: []string{"veth"}}}
	cni, err := lab.GoBuild(ctx, "./cmd/brfuse-cni")
	require.NoError(t, err)
	plugin, err := lab.GoBuildIn(ctx, "guestside/cni/cnitest", "./testplugin")
	require.NoError(t, err)
	o.Image.Files[path.Join(programs, cnitest.Brfuse)] = cni
	o.Image.Files[path.Join(programs, cnitest.Helper)] = plugin
	o.Image.Files[path.Join(programs, cnitest.Chain)] = plugin
	o.Image.Files[hostConform], err = lab.GoBuildIn(ctx, "integration/engines", "./conformtest")
	require.NoError(t, err)
	s, err := site.New(ctx, lab, o)
	require.NoError(t, err)
	f := fixture{Site: s}
	t.Cleanup(func() { f.close(t) })
	require.NoError(t, s.StartDaemon(ctx))
	f.brfuse(ctx, t, "network", "create", "blue", "--subnet", blue4+"0/24", "--subnet", blue6+"/64")
	f.brfuse(ctx, t, "network", "create", "red", "--subnet", green4+"0/24", "--subnet", "fd00:232::/64")
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", VNICs: 31})
	require.NoError(t, err)
	f.Guest = Guest{vm}
	ref := vm.Ref()
	f.brfuse(ctx, t, "vm", "add", ref.Name, "--qmp", ref.QMP, "--channel", ref.Channel)
	require.NoError(t, f.startAgent(ctx))
	f.must(ctx, t, "mkdir", "-p", "/run/state")
	t.Run("cni", func(t *testing.T) { cnitest.Run(t, f.env(programs)) })
	f.nothingLeft(ctx, t)
	t.Run("host", func(t *testing.T) { f.conformHost(ctx, t) })
	f.nothingLeft(ctx, t)
}

// hostConform is where the guest has the program that asks the host.
const hostConform = "/sbin/conformtest"

// conformHost asks the host what its fakes are asked in other tests, by the real
// client, channel, daemon and agent.
func (f fixture) conformHost(ctx context.Context, t *testing.T) {
	t.Helper()
	require.NoError(t, f.killProgram(ctx, "brfuse-agent"))
	ref := f.Ref()
	f.brfuse(ctx, t, "vm", "add", ref.Name, "--qmp", ref.QMP, "--channel", ref.Channel, "--guest-network", "blue")
	pods := []string{"front", "back"}
	for _, pod := range pods {
		_, err := f.AddPod(ctx, pod)
		require.NoError(t, err)
	}
	out := f.must(ctx, t, append([]string{hostConform, "-test.v", "blue", "red"}, pods...)...)
	assert.Contains(t, out, "--- PASS: Conform")
	for _, pod := range pods {
		require.NoError(t, f.RemovePod(ctx, pod))
	}
	f.brfuse(ctx, t, "vm", "add", ref.Name, "--qmp", ref.QMP, "--channel", ref.Channel, "--guest-network", "all")
	require.NoError(t, f.startAgent(ctx))
}

// env is the guest as the table wants it.
func (f fixture) env(programs string) cnitest.Env {
	shell := func(ctx context.Context, script string) (string, error) {
		res, err := f.Shell(ctx, script)
		if err == nil {
			err = res.Err()
		}
		return res.Stdout, err
	}
	return cnitest.Env{
		Exec: f.exec(),
		Dir:  programs, State: "/run/state", Socket: cniapi.DefaultSocket,
		Network: cnitest.Network{Name: "blue", V4: netip.MustParsePrefix(blue4 + "0/24"), V6: netip.MustParsePrefix(blue6 + "/64")},
		Second:  cnitest.Network{Name: "red", V4: netip.MustParsePrefix(green4 + "0/24"), V6: netip.MustParsePrefix("fd00:232::/64")},
		AddNetns: func(ctx context.Context, name string) (string, error) {
			_, err := f.AddPod(ctx, name)
			return "/run/netns/" + name, err
		},
		DelNetns: f.RemovePod,
		IP: func(ctx context.Context, netns string, args ...string) (string, error) {
			res, err := f.RunIn(ctx, netns, append([]string{"ip"}, args...)...)
			if err == nil {
				err = res.Err()
			}
			return res.Stdout, err
		},
		Shell:      shell,
		StopAgent:  func(ctx context.Context) error { return f.killProgram(ctx, "brfuse-agent") },
		StartAgent: f.startAgent,
		StopHost:   func(context.Context) error { f.KillDaemon(); return nil },
		StartHost:  f.startDaemon,
		Exhaust:    f.exhaust,
		Attachments: func(ctx context.Context) ([]string, error) {
			list, err := f.List(ctx)
			var keys []string
			for _, a := range list {
				keys = append(keys, a.Pod+"/"+a.Interface)
			}
			return keys, err
		},
	}
}

// exhaust uses up the guest's slots, by a pod that has a vNIC in each.
func (f fixture) exhaust(ctx context.Context) (restore func(context.Context) error, err error) {
	if _, err := f.AddPod(ctx, "filler"); err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		res, err := f.Brfuse(ctx, "attach", "--vm", "vm1", "--pod", "filler", "--network", "red", "--no-default-route", "--ifname", fmt.Sprint("e", i))
		switch {
		case err != nil:
			return nil, err
		case res.Code != 0 && i > 0:
			return func(ctx context.Context) error {
				if _, err := f.MustBrfuse(ctx, "detach", "--vm", "vm1", "--pod", "filler"); err != nil {
					return err
				}
				return f.RemovePod(ctx, "filler")
			}, nil
		case res.Code != 0:
			return nil, res.Err()
		}
	}
}
