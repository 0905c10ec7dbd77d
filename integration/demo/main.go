// Command demo shows what brfuse does, on real parts: it boots a VM, gives pods
// in it their own virtio NICs, lets them talk, takes the NICs away, and leaves
// nothing behind. Run it by `make demo`.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// limit bounds the whole demo, the first run's downloads included.
const limit = 10 * time.Minute

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := demo(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

func demo(ctx context.Context) (err error) {
	start := time.Now()
	say("Preparing: guest kernel, accelerator, programs, guest image")
	lab, err := vmlab.Open(ctx, vmlab.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	scratch, err := vmlab.NewScratch("brfuse-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	s, err := site.New(ctx, lab, site.Options{Dir: scratch.Dir, Image: vmlab.Image{Modules: []string{"nf_tables"}, Programs: []string{"/usr/sbin/nft"}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }() //nolint:contextcheck // it has to happen when ctx has ended, too
	fmt.Printf("guest kernel %s, accelerator %s\n", lab.Kernel.Release, lab.Accel)

	d := &show{site: s, dir: scratch.Dir}
	for _, part := range []func(context.Context) error{d.begin, d.attach, d.talk, d.look, d.pool, d.detach} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("%w\nend of the daemon's log:\n%s", err, s.LogTail())
		}
	}
	fmt.Printf("\nDone in %.0f s.\n", time.Since(start).Seconds())
	return nil
}

// say prints what comes next.
func say(what string) { fmt.Printf("\n== %s\n", what) }

// show is the demo's state.
type show struct {
	site *site.Site
	vm   *vmlab.VM
	dir  string
	web  attachment
	db   attachment
}

type attachment struct {
	Addresses []string `json:"addresses"`
}

// addr returns the address at an index without its prefix length.
func (a attachment) addr(i int) string {
	addr, _, _ := strings.Cut(a.Addresses[i], "/")
	return addr
}

func (d *show) begin(ctx context.Context) (err error) {
	say("A VM boots; `brfuse topology` says with what it can take 31 vNICs")
	began := time.Now()
	if d.vm, err = d.site.Boot(ctx, "vm1", 31); err != nil {
		return err
	}
	fmt.Printf("vm1 is up after %.1f s\n", time.Since(began).Seconds())
	say("The daemon starts on the host; a network is made, and the VM registered")
	if err := d.site.StartDaemon(ctx); err != nil {
		return err
	}
	if err := d.brfuse(ctx, "network", "create", "blue", "--subnet", "10.231.0.0/24", "--subnet", "fd00:231::/64"); err != nil {
		return err
	}
	ref := d.vm.Ref()
	if err := d.brfuse(ctx, "vm", "add", "vm1", "--qmp", ref.QMP, "--channel", ref.Channel); err != nil {
		return err
	}
	if err := d.site.AwaitAgent(ctx, "vm1"); err != nil {
		return err
	}
	say("Two pods in the VM: network namespaces with a process in each; they have no NIC yet")
	if err := d.vm.Put(ctx, "/tmp/index.html", []byte("A page from a pod on its own vNIC.\n"), 0o644); err != nil {
		return err
	}
	if _, err := d.vm.AddPod(ctx, "web", "busybox", "httpd", "-f", "-p", "80", "-h", "/tmp"); err != nil {
		return err
	}
	if _, err := d.vm.AddPod(ctx, "db"); err != nil {
		return err
	}
	return d.guest(ctx, "web", "ip", "-br", "link")
}

func (d *show) attach(ctx context.Context) error {
	say("Each pod gets its own virtio NIC")
	for _, p := range []struct {
		name string
		got  *attachment
	}{{"web", &d.web}, {"db", &d.db}} {
		if err := d.brfuse(ctx, "attach", "--pod", p.name, "--vm", "vm1"); err != nil {
			return err
		}
		// The same again changes nothing; its answer is wanted as JSON here.
		if err := d.site.BrfuseJSON(ctx, p.got, "attach", "--pod", p.name, "--vm", "vm1"); err != nil {
			return err
		}
	}
	return nil
}

func (d *show) talk(ctx context.Context) error {
	say("Host to pod")
	for i := range d.web.Addresses {
		if err := d.host(ctx, "ping", "-c", "2", "-i", "0.2", "-W", "5", d.web.addr(i)); err != nil {
			return err
		}
	}
	say("Pod to pod, and pod to host")
	for _, args := range [][]string{{"ping", d.db.addr(0)}, {"ping6", d.db.addr(1)}, {"ping", "10.231.0.1"}, {"ping6", "fd00:231::1"}} {
		if err := d.guest(ctx, "web", "busybox", args[0], "-c", "2", "-W", "5", args[1]); err != nil {
			return err
		}
	}
	say("A page over TCP, from the pod to the host")
	return d.host(ctx, "curl", "-s", "-S", "-m", "10", "http://"+d.web.addr(0)+"/index.html")
}

func (d *show) look(ctx context.Context) error {
	say("What there is")
	if err := d.brfuse(ctx, "list"); err != nil {
		return err
	}
	if err := d.brfuse(ctx, "vm", "list"); err != nil {
		return err
	}
	say("In the guest's first namespace: no veth, no bridge, no NAT")
	for _, argv := range [][]string{{"ip", "-br", "link"}, {"nft", "list", "ruleset"}} {
		if err := d.guest(ctx, "", argv...); err != nil {
			return err
		}
	}
	say("In the pod: the virtio device itself")
	for _, argv := range [][]string{{"ip", "-d", "link", "show", "eth0"}, {"ip", "-br", "addr"}, {"ip", "route"}, {"nft", "list", "ruleset"}} {
		if err := d.guest(ctx, "web", argv...); err != nil {
			return err
		}
	}
	return nil
}

func (d *show) detach(ctx context.Context) error {
	say("The pods give their NICs back, and nothing is left")
	for _, args := range [][]string{
		{"detach", "--pod", "web"},
		{"detach", "--pod", "db"},
		{"list"},
		{"gc", "--dry-run"},
		{"vm", "rm", "vm1"},
		{"network", "rm", "blue"},
	} {
		if err := d.brfuse(ctx, args...); err != nil {
			return err
		}
	}
	for _, argv := range [][]string{{"ip", "-br", "link"}, {"nft", "list", "tables"}} {
		if err := d.host(ctx, argv...); err != nil {
			return err
		}
	}
	return d.guest(ctx, "web", "ip", "-br", "link")
}

// brfuse shows a command line and what it prints.
func (d *show) brfuse(ctx context.Context, args ...string) error {
	d.prompt("host", "brfuse", args...)
	res, err := d.site.Brfuse(ctx, args...)
	return d.print(res, err)
}

func (d *show) host(ctx context.Context, argv ...string) error {
	d.prompt("host", argv[0], argv[1:]...)
	res, err := d.site.Net.Run(ctx, argv...)
	return d.print(res, err)
}

// guest shows a command in a pod, or with no pod in the guest's first namespace.
func (d *show) guest(ctx context.Context, pod string, argv ...string) error {
	where := "vm1"
	if pod != "" {
		where += " pod " + pod
	}
	d.prompt(where, argv[0], argv[1:]...)
	res, err := d.vm.RunIn(ctx, pod, argv...)
	return d.print(res, err)
}

func (d *show) prompt(where, program string, args ...string) {
	line := strings.Join(append([]string{program}, args...), " ")
	fmt.Printf("[%s]# %s\n", where, strings.ReplaceAll(line, d.dir+"/", ""))
}

func (d *show) print(res vmlab.Result, err error) error {
	fmt.Print(strings.ReplaceAll(res.Stdout, d.dir+"/", ""))
	if err != nil {
		return err
	}
	return res.Err()
}
