package macro

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// fakePlace notes the commands, has a server listen at the third look for it, and
// answers the clients with what they once printed.
type fakePlace struct {
	t        *testing.T
	did      []string
	answers  map[string]string // file in testdata by program
	socket   string            // line of the table of sockets
	running  bool
	looks    int
	startErr error
}

func (f *fakePlace) Run(_ context.Context, argv ...string) (vmlab.Result, error) {
	if argv[0] == "cat" {
		if f.running {
			f.looks++
		}
		if f.looks >= 3 {
			return vmlab.Result{Stdout: f.socket}, nil
		}
		return vmlab.Result{Code: 1}, nil
	}
	f.did = append(f.did, strings.Join(argv, " "))
	return vmlab.Result{Stdout: read(f.t, f.answers[filepath.Base(argv[0])])}, nil
}

func (f *fakePlace) Start(_ context.Context, argv ...string) (*fakeProc, error) {
	if f.startErr != nil {
		return nil, f.startErr
	}
	f.did, f.running = append(f.did, "start "+strings.Join(argv, " ")), true
	return &fakeProc{f}, nil
}

type fakeProc struct{ f *fakePlace }

func (p *fakeProc) Stop(ctx context.Context) error {
	p.f.did, p.f.running = append(p.f.did, "stop"), false
	return ctx.Err()
}

func (p *fakeProc) Log() string { return "its log" }

func TestRunCommands(t *testing.T) {
	for _, tt := range []struct{ workload, socket, answer, want string }{
		{"iperf3/tcp", "0: 0:1451 0:0 0A", "iperf3_tcp.json", `
start /usr/bin/iperf3 -s -p 5201
/usr/bin/iperf3 -c 10.1.0.2 -p 5201 -J -R -t 2 -O 1 -l 16384
stop`},
		{"iperf3/udp64", "0: 0:1451 0:0 0A", "iperf3_udp.json", `
start /usr/bin/iperf3 -s -p 5201
/usr/bin/iperf3 -c 10.1.0.2 -p 5201 -J -R -t 2 -O 1 -u -b 0 -l 64
stop`},
		{"sockperf/1024", "0: 0:2B67 0:0 0A", "sockperf_tcp.txt", `
start /usr/bin/sockperf server -p 11111 --tcp
/usr/bin/sockperf ping-pong -i 10.1.0.2 -p 11111 --tcp -m 1024 -t 2 --full-rtt --no-rdtsc
stop`},
		{"sockperf/udp64", "0: 0:2B67 0:0 07", "sockperf_udp.txt", `
start /usr/bin/sockperf server -p 11111
/usr/bin/sockperf ping-pong -i 10.1.0.2 -p 11111 -m 64 -t 2 --full-rtt --no-rdtsc
stop`},
		{"redis/get", "0: 0:18EB 0:0 0A", "redis.csv", `
start /usr/bin/redis-server --port 6379 --bind * --protected-mode no --save  --appendonly no --daemonize no --dir /
/usr/bin/redis-benchmark -h 10.1.0.2 -p 6379 -t set,get -n 500 -c 8 -d 64 --csv
/usr/bin/redis-benchmark -h 10.1.0.2 -p 6379 -t get -n 55555 -c 8 -d 64 --csv
/usr/bin/redis-benchmark -h 10.1.0.2 -p 6379 -t get -n 166666 -c 8 -d 64 --csv
stop`},
		{"http/1k", "0: 0:1F90 0:0 0A", "wrk.txt", `
start /usr/sbin/nginx -p /srv/brfuse-bench -c nginx.conf -e stderr
/usr/bin/wrk -t1 -c8 -d1s --latency http://10.1.0.2:8080/1k
/usr/bin/wrk -t1 -c8 -d2s --latency http://10.1.0.2:8080/1k
stop`},
	} {
		t.Run(tt.workload, func(t *testing.T) {
			f := &fakePlace{t: t, socket: tt.socket, answers: map[string]string{}}
			for _, program := range []string{"iperf3", "sockperf", "redis-benchmark", "wrk"} {
				f.answers[program] = tt.answer
			}
			p := PlaceOf(f)
			m, err := Run(t.Context(), Setup{p, p, netip.MustParseAddr("10.1.0.2")}, tt.workload,
				Options{Duration: 1500 * time.Millisecond, WarmUp: 500 * time.Millisecond})
			require.NoError(t, err)
			assert.NotEmpty(t, m)
			assert.Equal(t, strings.TrimPrefix(tt.want, "\n"), strings.Join(f.did, "\n"))
		})
	}
}

func TestRunFails(t *testing.T) {
	const listens = "0: 0:1451 0:0 0A"
	run := func(ctx context.Context, f *fakePlace, workload string) error {
		p := PlaceOf(f)
		_, err := Run(ctx, Setup{p, p, netip.MustParseAddr("10.1.0.2")}, workload, Options{})
		return err
	}
	t.Run("unknown", func(t *testing.T) {
		require.ErrorContains(t, run(t.Context(), &fakePlace{t: t}, "gopher"), "http/1k, iperf3/tcp")
	})
	t.Run("taken", func(t *testing.T) {
		f := &fakePlace{t: t, socket: listens, looks: 3}
		require.ErrorContains(t, run(t.Context(), f, "iperf3/tcp"), "port 5201 is taken")
		assert.Empty(t, f.did)
	})
	t.Run("start", func(t *testing.T) {
		f := &fakePlace{t: t, startErr: os.ErrPermission}
		require.ErrorIs(t, run(t.Context(), f, "iperf3/tcp"), os.ErrPermission)
	})
	t.Run("never listens", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		f := &fakePlace{t: t}
		err := run(ctx, f, "iperf3/tcp")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `on port 5201: context deadline exceeded; it wrote: "its log"`)
		assert.Equal(t, "stop", f.did[len(f.did)-1], "with a context that has not ended")
	})
	t.Run("client", func(t *testing.T) {
		f := &fakePlace{t: t, socket: listens, answers: map[string]string{"iperf3": "iperf3_err.json"}}
		err := run(t.Context(), f, "iperf3/tcp")
		require.ErrorContains(t, err, `Connection refused; the server wrote: "its log"`)
		assert.False(t, f.running)
	})
}

// netnsPlace is a namespace of this machine.
type netnsPlace struct {
	ns  *vmlab.NetNS
	dir string
}

func newNetnsPlace(t *testing.T) Place {
	t.Helper()
	inCI := os.Getenv("CI") != ""
	if missing := Missing(); len(missing) > 0 && !inCI {
		t.Skip("not installed: ", missing)
	}
	if os.Geteuid() != 0 && !inCI {
		t.Skip("needs root")
	}
	ns, err := vmlab.NewNetNS(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return PlaceOf(netnsPlace{ns, t.TempDir()})
}

func (p netnsPlace) Run(ctx context.Context, argv ...string) (vmlab.Result, error) {
	return p.ns.Run(ctx, argv...)
}

func (p netnsPlace) Start(_ context.Context, argv ...string) (*netnsProc, error) {
	proc := &netnsProc{log: filepath.Join(p.dir, filepath.Base(argv[0]))}
	f, err := os.Create(proc.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := p.ns.Command(argv...)
	cmd.Stdout, cmd.Stderr = f, f
	proc.Process, err = vmlab.StartProcess(cmd)
	return proc, err
}

type netnsProc struct {
	*vmlab.Process
	log string
}

func (p *netnsProc) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.Done():
		return nil
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
}

func (p *netnsProc) Log() string {
	b, err := os.ReadFile(p.log)
	return fmt.Sprint(string(b), err)
}

func TestIntegrationPrograms(t *testing.T) {
	p := newNetnsPlace(t)
	root := t.TempDir()
	require.NoError(t, WriteRoot(root))
	want := map[string][]string{
		"iperf3/tcp":     {"B/s", "retrans"},
		"iperf3/udp64":   {"B/s", "loss", "msg/s"},
		"sockperf/1024":  {"loss", "msg/s", "p50-ns", "p90-ns", "p99-ns", "p99.9-ns"},
		"sockperf/udp64": {"loss", "msg/s", "p50-ns", "p90-ns", "p99-ns", "p99.9-ns"},
		"redis/get":      {"msg/s", "p50-ns", "p99-ns"},
		"redis/set":      {"msg/s", "p50-ns", "p99-ns"},
		"http/1k":        {"B/s", "msg/s", "p50-ns", "p90-ns", "p99-ns"},
	}
	require.Len(t, want, len(Workloads()))
	for _, workload := range Workloads() {
		t.Run(workload, func(t *testing.T) {
			m, err := Run(t.Context(), Setup{p, p, netip.MustParseAddr("127.0.0.1")}, workload, Options{Duration: time.Second, Root: root})
			require.NoError(t, err)
			t.Log(m)
			var names []string
			for name, v := range m {
				names = append(names, name)
				if name != "loss" && name != "retrans" {
					assert.Positive(t, v, name)
				}
			}
			slices.Sort(names)
			assert.Equal(t, want[workload], names)
			if p50, ok := m["p50-ns"]; ok {
				assert.Less(t, p50, m["p99-ns"]+1)
				// One request is under way on each connection: rate and latency fit together.
				connections := 1.0
				if !strings.HasPrefix(workload, "sockperf") {
					connections = 8
				}
				assert.Greater(t, m["msg/s"]*p50/1e9, connections/20, "requests under way")
				assert.Less(t, m["msg/s"]*p50/1e9, connections*2, "requests under way")
			}
			there, err := listening(t.Context(), p, loads()[workload])
			require.NoError(t, err)
			assert.False(t, there, "the server is gone")
		})
	}
}

func TestIntegrationProgramsFail(t *testing.T) {
	p := newNetnsPlace(t)
	t.Run("no way", func(t *testing.T) {
		for _, workload := range []string{"iperf3/tcp", "sockperf/1024"} {
			_, err := Run(t.Context(), Setup{p, p, netip.MustParseAddr("192.0.2.1")}, workload, Options{Duration: time.Second})
			require.ErrorContains(t, err, "etwork is unreachable", workload)
		}
	})
	t.Run("no configuration", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Run(ctx, Setup{p, p, netip.MustParseAddr("127.0.0.1")}, "http/1k", Options{Root: t.TempDir()})
		require.ErrorContains(t, err, "nginx.conf")
		require.ErrorIs(t, err, os.ErrProcessDone)
	})
}

func TestImage(t *testing.T) {
	if missing := Missing(); len(missing) > 0 {
		_, err := Image(t.TempDir())
		require.ErrorContains(t, err, missing[0])
		require.ErrorContains(t, err, "scripts/deps bench")
		return
	}
	img, err := Image(t.TempDir())
	require.NoError(t, err)
	for _, program := range img.Programs {
		assert.FileExists(t, program)
	}
	for _, dest := range []string{"/srv/brfuse-bench/nginx.conf", "/srv/brfuse-bench/1k", "/etc/passwd", "/etc/group"} {
		assert.FileExists(t, img.Files[dest], dest)
	}
	fi, err := os.Stat(img.Files["/srv/brfuse-bench/1k"])
	require.NoError(t, err)
	assert.EqualValues(t, httpSize, fi.Size())

	_, err = Image(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// guestPlace is a pod of a guest.
type guestPlace struct{ vm *vmlab.VM }

func (p guestPlace) Run(ctx context.Context, argv ...string) (vmlab.Result, error) {
	return p.vm.RunIn(ctx, "pod", argv...)
}

func (p guestPlace) Start(ctx context.Context, argv ...string) (*guestProc, error) {
	proc, err := p.vm.Start(ctx, vmlab.Command{Argv: argv, Netns: "pod"})
	return &guestProc{proc, p.vm, filepath.Base(argv[0])}, err
}

type guestProc struct {
	*vmlab.GuestProcess
	vm   *vmlab.VM
	name string
}

func (p *guestProc) Stop(ctx context.Context) error {
	if err := p.Signal(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	_, err := p.Wait(ctx)
	return err
}

func (p *guestProc) Log() string {
	b, err := p.vm.Get(context.Background(), "/run/log/"+p.name+".log")
	return fmt.Sprint(string(b), err)
}

// The image has what the programs need.
func TestIntegrationGuest(t *testing.T) {
	lab, err := vmlab.Open(t.Context(), vmlab.Options{})
	if (err != nil || len(Missing()) > 0) && os.Getenv("CI") == "" {
		t.Skip(err, Missing())
	}
	require.NoError(t, err)
	dir := t.TempDir()
	img, err := Image(dir)
	require.NoError(t, err)
	initrd, err := lab.Build(t.Context(), filepath.Join(dir, "initrd"), img)
	require.NoError(t, err)
	vm, err := lab.Boot(t.Context(), vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })
	_, err = vm.AddPod(t.Context(), "pod")
	require.NoError(t, err)
	p := PlaceOf(guestPlace{vm})
	for _, workload := range []string{"http/1k", "iperf3/tcp", "redis/get", "sockperf/1024"} {
		t.Run(workload, func(t *testing.T) {
			m, err := Run(t.Context(), Setup{p, p, netip.MustParseAddr("127.0.0.1")}, workload, Options{Duration: time.Second})
			require.NoError(t, err)
			t.Log(m)
			assert.NotEmpty(t, m)
		})
	}
}
