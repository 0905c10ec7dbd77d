package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationFused shows that a pod has the virtio NIC itself and reaches,
// and is reached by, host and pods, with nothing nested in between.
func TestIntegrationFused(t *testing.T) {
	ctx, s, vm := newPods(t, site.Options{Race: true}, "web", "db")
	web := attach(ctx, t, s, "--pod", "web")
	db := attach(ctx, t, s, "--pod", "db")
	run(ctx, t, s, "network", "create", "green", "--subnet", "10.232.0.0/24")
	web2 := attach(ctx, t, s, "--pod", "web", "--network", "green", "--ifname", "net1", "--no-default-route")

	t.Run("virtio in the pod", func(t *testing.T) {
		for name, a := range map[string]attachment{"eth0": web, "net1": web2} {
			out := inGuest(ctx, t, vm, "web", "ip", "-d", "link", "show", name)
			assert.Contains(t, out, a.MAC)
			assert.Contains(t, out, "parentbus virtio", "the device itself, no veth")
			assert.Contains(t, out, ",UP,LOWER_UP>")
		}
		drivers := inGuest(ctx, t, vm, "", "sh", "-c", "readlink -f /sys/bus/pci/devices/"+web.GuestPCI+"/virtio*/driver")
		assert.Equal(t, "/sys/bus/virtio/drivers/virtio_net", strings.TrimSpace(drivers))
	})
	t.Run("nothing nested", func(t *testing.T) { assertNothingNested(ctx, t, vm) })
	t.Run("traffic", func(t *testing.T) { assertTraffic(ctx, t, s, vm, web, db) })
	t.Run("routes", func(t *testing.T) {
		assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "route"), "default via "+bluePrefix4+"1 dev eth0")
		assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "-6", "route"), "default via "+bluePrefix6+"1 dev eth0")
		assert.NotContains(t, inGuest(ctx, t, vm, "web", "ip", "route"), "default via 10.232.0.1")
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", web2.Addr(false))
	})
	t.Run("timings", func(t *testing.T) {
		var steps []string
		for _, x := range web.Timings {
			steps = append(steps, x.Step)
		}
		assert.Subset(t, steps, []string{"lease", "prepare", "plug", "appear", "move", "configure", "total"})
	})
	settled(ctx, t, s, vm)
	t.Run("again", func(t *testing.T) {
		run(ctx, t, s, "detach", "--pod", "web")
		run(ctx, t, s, "detach", "--pod", "db")
		assertNothingLeft(ctx, t, s, vm)
		web := attach(ctx, t, s, "--pod", "web", "--network", "blue")
		assert.Contains(t, inGuest(ctx, t, vm, "web", "ip", "-6", "route", "show", "table", "local"), "multicast ff00::/8 dev eth0",
			"without it neighbour solicitations are dropped until the kernel makes it, up to a second later")
		db := attach(ctx, t, s, "--pod", "db", "--network", "blue")
		assertNothingNested(ctx, t, vm)
		assertTraffic(ctx, t, s, vm, web, db)
		run(ctx, t, s, "detach", "--pod", "web")
		run(ctx, t, s, "detach", "--pod", "db")
	})
	run(ctx, t, s, "network", "rm", "green")
	run(ctx, t, s, "network", "rm", "blue")
	assertNothingLeft(ctx, t, s, vm)
	assert.Empty(t, onHost(ctx, t, s, "nft", "list", "tables"))
	assert.Equal(t, 1, strings.Count(onHost(ctx, t, s, "ip", "-o", "link"), "\n"), "lo alone")
}

// assertNothingNested looks at the guest's first namespace and the pods.
func assertNothingNested(ctx context.Context, t *testing.T, vm *vmlab.VM) {
	t.Helper()
	for _, ns := range []string{"", "web", "db"} {
		for _, kind := range []string{"veth", "bridge"} {
			assert.Empty(t, inGuest(ctx, t, vm, ns, "ip", "link", "show", "type", kind), "%s in namespace %q", kind, ns)
		}
		assert.Empty(t, inGuest(ctx, t, vm, ns, "nft", "list", "ruleset"), "rules in namespace %q", ns)
	}
	assert.Equal(t, 1, strings.Count(inGuest(ctx, t, vm, "", "ip", "-o", "link"), "\n"), "lo alone in the first namespace")
}

// assertTraffic pings and fetches a page, over IPv4 and IPv6, in all directions.
func assertTraffic(ctx context.Context, t *testing.T, s *site.Site, vm *vmlab.VM, web, db attachment) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		gateway, ping := bluePrefix4+"1", "ping"
		if v6 {
			gateway, ping = bluePrefix6+"1", "ping6"
		}
		onHost(ctx, t, s, "ping", "-c", "2", "-i", "0.2", "-W", "5", web.Addr(v6))
		inGuest(ctx, t, vm, "web", "busybox", ping, "-c", "1", "-W", "5", gateway)
		inGuest(ctx, t, vm, "web", "busybox", ping, "-c", "1", "-W", "5", db.Addr(v6))
		inGuest(ctx, t, vm, "db", "busybox", ping, "-c", "1", "-W", "5", web.Addr(v6))
		assertTCP(ctx, t, vm, web, s.Net, gateway)
	}
}

// page is big enough to take more than one segment.
var page = strings.Repeat("brfuse ", 2000)

// assertTCP has the pod web serve a page to a station with that address and to the pod
// db, and the station serve one to the pod.
func assertTCP(ctx context.Context, t *testing.T, vm *vmlab.VM, web attachment, station *vmlab.NetNS, addr string) {
	t.Helper()
	require.NoError(t, vm.Put(ctx, "/tmp/page", []byte(page), 0o644))
	v6, port := strings.Contains(addr, ":"), "8080"
	if v6 {
		port = "8086"
	}
	host := bracket(web.Addr(v6))
	srv, err := vm.Start(ctx, vmlab.Command{Argv: []string{"busybox", "httpd", "-f", "-p", host + ":" + port, "-h", "/tmp"}, Netns: "web"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, srv.Kill(ctx)) }()
	url := "http://" + host + ":" + port + "/page"
	var got string
	require.NoError(t, site.Until(ctx, "the page from "+url, func(ctx context.Context) (bool, error) {
		res, err := station.Run(ctx, "curl", "-s", "-S", "-m", "5", url)
		got = res.Stdout
		return err == nil && res.Code == 0, err
	}))
	assert.Equal(t, page, got, "from station to pod")
	assert.Contains(t, inGuest(ctx, t, vm, "db", "sh", "-c", fetch(web.Addr(v6), port)), "\r\n\r\n"+page, "from pod to pod")

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "page"), []byte(page), 0o600))
	stationServer, err := vmlab.StartProcess(station.Command("busybox", "httpd", "-f", "-p", bracket(addr)+":"+port, "-h", dir))
	require.NoError(t, err)
	defer stationServer.Kill()
	require.NoError(t, site.Until(ctx, "the station's page", func(ctx context.Context) (bool, error) {
		res, err := vm.RunIn(ctx, "web", "sh", "-c", fetch(addr, port))
		return strings.Contains(res.Stdout, "\r\n\r\n"+page), err
	}), "from pod to station")
}

// fetch is a script that gets the page; busybox's wget looks for name servers,
// which crashes a static one.
func fetch(addr, port string) string {
	return "printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 " + addr + " " + port
}

func bracket(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// TestIntegrationTwentyAtOnce attaches twenty pods by concurrent calls, and
// looks at the memory that daemon and agent take.
func TestIntegrationTwentyAtOnce(t *testing.T) {
	const n = 20
	var pods []string
	for i := range n {
		pods = append(pods, fmt.Sprintf("pod%d", i))
	}
	ctx, s, vm := newPods(t, site.Options{}, pods...)
	cl, err := s.Client()
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make([]error, n)
	atts := make([]*brfusev1.Attachment, n)
	for i, pod := range pods {
		wg.Go(func() {
			atts[i], errs[i] = cl.Attach(ctx, &brfusev1.AttachRequest{Vm: "vm1", Pod: pod})
		})
	}
	wg.Wait()
	for i := range pods {
		require.NoError(t, errs[i])
		addr, _, _ := strings.Cut(atts[i].GetAddresses()[0], "/")
		onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", addr)
	}
	tr := settled(ctx, t, s, vm)
	assert.Len(t, tr.Store, n)

	daemon := rss(t, readFile(t, fmt.Sprintf("/proc/%d/status", s.DaemonPID())))
	proc, err := vm.Find(ctx, "brfuse-agent")
	require.NoError(t, err)
	status, err := vm.Get(ctx, fmt.Sprintf("/proc/%d/status", proc.PID))
	require.NoError(t, err)
	agent := rss(t, string(status))
	t.Logf("resident memory with %d attachments: brfused %d KiB, brfuse-agent %d KiB", n, daemon, agent)
	assert.Less(t, daemon, 50<<10)
	assert.Less(t, agent, 20<<10)

	for i, pod := range pods {
		wg.Go(func() { _, errs[i] = cl.Detach(ctx, &brfusev1.DetachRequest{Pod: pod}) })
	}
	wg.Wait()
	for i := range pods {
		require.NoError(t, errs[i])
	}
	assertNothingLeft(ctx, t, s, vm)
}
