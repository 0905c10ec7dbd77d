package engines

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// limit bounds each test, in its context.
const limit = 12 * time.Minute

// fixture is a hypervisor with one guest that has engines and brfuse's front doors.
type fixture struct {
	*site.Site
	Guest
}

// The networks of the tests.
const (
	blue4  = "10.231.0."
	blue6  = "fd00:231::"
	green4 = "10.232.0."
)

// cniConf is the configuration of network blue for containerd and podman.
const cniConf = `{"cniVersion": "1.0.0", "name": "blue", "plugins": [
  {"type": "brfuse", "network": "blue", "capabilities": {"ips": true, "mac": true, "bandwidth": true, "portMappings": true, "dns": true}},
  {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}]}`

// openLab opens the lab, in parallel with other tests: each has a network
// namespace of its own, and a guest with one CPU.
func openLab(t *testing.T) (context.Context, *vmlab.Lab) {
	t.Helper()
	t.Parallel()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("boots a guest")
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	if _, err := exec.LookPath("mke2fs"); err != nil {
		skip("needs e2fsprogs; run scripts/deps as root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	require.NoError(t, err)
	return ctx, lab
}

// shortDir returns an empty folder whose path is short enough for unix sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newFixture boots a guest with networks blue and green.
func newFixture(t *testing.T, o site.Options) (context.Context, fixture) {
	t.Helper()
	ctx, lab := openLab(t)
	return ctx, bootFixture(ctx, t, lab, o, func(*vmlab.Config) {})
}

// bootFixture is newFixture for a guest whose configuration is edited.
func bootFixture(ctx context.Context, t *testing.T, lab *vmlab.Lab, o site.Options, edit func(*vmlab.Config)) fixture {
	t.Helper()
	o.Dir = shortDir(t)
	var err error
	o.Image, err = Image(ctx, lab, o.Image)
	require.NoError(t, err)
	cni, err := lab.GoBuild(ctx, "./cmd/brfuse-cni")
	require.NoError(t, err)
	o.Image.Files["/usr/lib/cni/brfuse"] = cni
	o.Image.Files[udpEcho], err = lab.GoBuildIn(ctx, "integration/engines", "./udpecho")
	require.NoError(t, err)
	s, err := site.New(ctx, lab, o)
	require.NoError(t, err)
	f := fixture{Site: s}
	t.Cleanup(func() { f.close(t) }) //nolint:contextcheck // has to be done when ctx has ended too
	require.NoError(t, s.StartDaemon(ctx))
	f.brfuse(ctx, t, "network", "create", "blue", "--subnet", blue4+"0/24", "--subnet", blue6+"/64")
	f.brfuse(ctx, t, "network", "create", "green", "--subnet", green4+"0/24")
	cfg, err := Config(ctx, lab, vmlab.Config{Name: "vm1", VNICs: 31})
	require.NoError(t, err)
	edit(&cfg)
	vm, err := s.BootConfig(ctx, cfg)
	require.NoError(t, err)
	f.Guest = Guest{vm}
	require.NoError(t, s.AddVM(ctx, vm))
	return f
}

// close ends all, and prints the logs when the test failed.
func (f *fixture) close(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Logf("end of the daemon's log:\n%s", f.LogTail())
		f.logs(t)
	}
	assert.NoError(t, f.Close())
}

// logs prints the ends of what ran in the guest.
func (f fixture) logs(t *testing.T) {
	t.Helper()
	if f.VM == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, name := range []string{"brfuse-agent", "dockerd", "containerd"} {
		if b, err := f.Get(ctx, "/run/log/"+name+".log"); err == nil {
			t.Logf("%s:\n%s", name, tail(b, 6000))
		}
	}
}

func (f fixture) brfuse(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := f.MustBrfuse(ctx, args...)
	require.NoError(t, err)
	return out
}

// must runs a command in the guest, which has to succeed.
func (f fixture) must(ctx context.Context, t *testing.T, argv ...string) string {
	t.Helper()
	out, err := f.Guest.Output(ctx, argv...)
	require.NoError(t, err)
	return out
}

// answers checks that an address answers the host.
func (f fixture) answers(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	_, err := f.Output(ctx, "ping", "-c", "2", "-i", "0.2", "-W", "5", addr)
	require.NoError(t, err)
}

// notNested checks that the guest's first namespace has neither veth nor bridge,
// and no rule that translates addresses.
func (f fixture) notNested(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, kind := range []string{"veth", "bridge"} {
		assert.Empty(t, f.must(ctx, t, "ip", "-o", "link", "show", "type", kind), kind)
	}
	rules := f.must(ctx, t, "nft", "list", "ruleset")
	for _, word := range []string{"masquerade", "dnat", "snat"} {
		assert.NotContains(t, rules, word)
	}
}

// nothingLeft checks that nothing of any attachment is anywhere, once all that
// is under way has ended.
func (f fixture) nothingLeft(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// What an engine doesn't tell, brfuse finds out some seconds later.
	require.NoError(t, site.Until(waiting, "the end of all attachments", func(ctx context.Context) (bool, error) {
		list, err := f.List(ctx)
		return len(list) == 0, err
	}))
	tr, err := f.Settle(ctx, f.VM)
	require.NoError(t, err)
	assert.Equal(t, site.Truths{}, tr)
	assert.Contains(t, f.brfuse(ctx, t, "gc", "--dry-run"), "nothing to remove")
}

// one returns the one attachment that there is.
func (f fixture) one(ctx context.Context, t *testing.T) site.Attachment {
	t.Helper()
	list, err := f.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0]
}

// link is what a container's `ip -o link` and `ip -o addr` show of an interface.
func (f fixture) ipIn(ctx context.Context, t *testing.T, pid string, args ...string) string {
	t.Helper()
	res, err := f.RunIn(ctx, pid, append([]string{"ip"}, args...)...)
	require.NoError(t, err)
	require.NoError(t, res.Err())
	return res.Stdout
}

// assertFused checks that the process's namespace has the virtio NIC itself.
func (f fixture) assertFused(ctx context.Context, t *testing.T, pid string, a site.Attachment) {
	t.Helper()
	links := f.ipIn(ctx, t, pid, "-d", "-o", "link")
	assert.Contains(t, links, a.MAC)
	assert.Contains(t, links, "parentbus virtio", "the device itself, no veth")
	assert.NotContains(t, links, "veth")
	addrs := f.ipIn(ctx, t, pid, "-o", "addr")
	for _, p := range a.Addresses {
		assert.Contains(t, addrs, p)
	}
	f.answers(ctx, t, a.Addr(false))
}

func fields(s string) []string { return strings.Fields(s) }
