package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore/etcdtest"
)

// The underlay: a switch that etcd's members and the tests' clients are at, with a
// port for each hypervisor.
const (
	underlayMTU = 1500 // bytes
	members     = 3
	upstream    = "192.0.2.53" // the name server outside
	client      = "192.0.2.99"
	uplink      = "eth0" // a hypervisor's link to the switch
	apiPort     = "7443"

	metricsSocket = "metrics.sock" // in a hypervisor's folder
)

// podtool is where guests have it.
const podtool = "/sbin/podtool"

// hyper is a hypervisor.
type hyper struct {
	*site.Site
	name   string
	port   string // at the switch
	v4, v6 netip.Addr
	vm     *vmlab.VM // nil: it has none
}

// rig is what all tests work on.
type rig struct {
	dir     string
	sw      *vmlab.NetNS
	etcd    *etcdtest.Cluster
	a, b, c *hyper // c has no guest
}

func (r *rig) all() []*hyper { return []*hyper{r.a, r.b, r.c} }

// newRig makes everything, and removes it when that fails.
func newRig(ctx context.Context) (_ *rig, err error) {
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if err != nil {
		return nil, err
	}
	r := &rig{}
	defer func() { //nolint:contextcheck // has to be done when ctx has ended too
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp("", "brf"); err != nil { // short, for the paths of sockets
		return nil, err
	}
	if err := r.addSwitch(ctx); err != nil {
		return nil, err
	}
	tool, err := lab.GoBuild(ctx, "./integration/cluster/internal/podtool")
	if err != nil {
		return nil, err
	}
	for i, h := range []**hyper{&r.a, &r.b, &r.c} {
		if *h, err = r.addHyper(ctx, lab, i, tool); err != nil {
			return nil, err
		}
	}
	if err := r.boot(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// addSwitch makes the switch, and etcd at it.
func (r *rig) addSwitch(ctx context.Context) (err error) {
	if r.sw, err = vmlab.NewNetNS(ctx); err != nil {
		return err
	}
	cmds := []string{"ip link add sw type bridge mcast_snooping 0", "ip link set sw up"}
	addrs := []string{client, upstream} // what is sent from here comes from the first
	var hosts []string
	var spaces []*netnsx.NS
	for i := range members {
		hosts = append(hosts, fmt.Sprintf("192.0.2.%d", 1+i))
		spaces = append(spaces, r.sw.NS())
	}
	for _, a := range append(addrs, hosts...) {
		cmds = append(cmds, "ip addr add "+a+"/24 dev sw")
	}
	cmds = append(cmds, "ip addr add 2001:db8::99/64 dev sw nodad")
	if err := runAll(ctx, r.sw, cmds...); err != nil {
		return err
	}
	r.etcd, err = etcdtest.New(ctx, etcdtest.Options{Hosts: hosts, Namespaces: spaces, TLS: true})
	return err
}

// addHyper makes a hypervisor with a link to the switch, and no daemon yet.
func (r *rig) addHyper(ctx context.Context, lab *vmlab.Lab, i int, tool string) (*hyper, error) {
	h := &hyper{
		name: "hv" + string(rune('a'+i)), port: fmt.Sprintf("p%d", i),
		v4: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 11+i)),
		v6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i)),
	}
	dir := filepath.Join(r.dir, h.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	cert, key, resolv := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "resolv.conf")
	err := errors.Join(r.etcd.Certs.Issue(cert, key, h.v4.String(), h.v6.String()),
		os.WriteFile(resolv, []byte("nameserver "+upstream+"\n"), 0o600))
	if err != nil {
		return nil, err
	}
	h.Site, err = site.New(ctx, lab, site.Options{
		Dir: dir, Resolv: resolv,
		Image: vmlab.Image{Files: map[string]string{podtool: tool}, Programs: []string{"/usr/bin/ping"}},
		DaemonArgs: []string{
			"--store", r.storeURL(), "--hypervisor", h.name, "--metrics", "unix:" + filepath.Join(dir, metricsSocket),
			"--api-listen", h.v4.String() + ":" + apiPort, "--tls-cert", cert, "--tls-key", key, "--tls-ca", r.etcd.Certs.CA,
		},
	})
	if err != nil {
		return nil, err
	}
	h.setUnderlay(h.v4)
	err = runAll(ctx, r.sw,
		fmt.Sprintf("ip link add %s mtu %d type veth peer name %s mtu %d netns %s", h.port, underlayMTU, uplink, underlayMTU, h.Net.Path()),
		fmt.Sprintf("ip link set %s master sw up", h.port))
	if err == nil {
		err = runAll(ctx, h.Net, "ip addr add "+h.v4.String()+"/24 dev "+uplink, "ip addr add "+h.v6.String()+"/64 dev "+uplink+" nodad",
			"ip link set "+uplink+" up")
	}
	return h, err
}

// setUnderlay has the daemon's next start use an address of the underlay.
func (h *hyper) setUnderlay(a netip.Addr) {
	const flag = "--underlay"
	args := h.DaemonArgs
	if i := slices.Index(args, flag); i >= 0 {
		args = slices.Delete(args, i, i+2)
	}
	h.DaemonArgs = append(args, flag, a.String())
}

func (r *rig) storeURL() string {
	c := r.etcd.Certs
	return fmt.Sprintf("etcds://%s?ca=%s&cert=%s&key=%s", strings.Join(r.etcd.Endpoints(), ","), c.CA, c.Cert, c.Key)
}

// boot starts the daemons, and the guests of two hypervisors.
func (r *rig) boot(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, h := range r.all() {
		wg.Go(func() {
			errs[i] = h.StartDaemon(ctx)
			if errs[i] != nil || h == r.c {
				return
			}
			if h.vm, errs[i] = h.BootConfig(ctx, vmlab.Config{Name: "vm-" + h.name, Mem: 192}); errs[i] == nil {
				errs[i] = h.AddVM(ctx, h.vm)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close ends everything.
func (r *rig) close() error {
	var errs []error
	for _, h := range r.all() {
		if h != nil && h.Site != nil {
			errs = append(errs, h.Close())
		}
	}
	if r.etcd != nil {
		errs = append(errs, r.etcd.Close())
	}
	if r.sw != nil {
		errs = append(errs, r.sw.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// logs prints the ends of all logs.
func (r *rig) logs(t *testing.T) {
	t.Helper()
	for _, h := range r.all() {
		t.Logf("end of the log of %s's daemon:\n%s", h.name, h.LogTail())
	}
}

// runAll runs commands in a namespace, which all have to succeed.
func runAll(ctx context.Context, ns *vmlab.NetNS, commands ...string) error {
	for _, c := range commands {
		res, err := ns.Run(ctx, strings.Fields(c)...)
		if err == nil {
			err = res.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}
