package containers_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/guestside/containers"
	"github.com/brfuse/brfuse/vnic"
)

const (
	sandbox = "3fc0de0000000000000000000000000000000000000000000000000000000001"
	app     = "3fc0de0000000000000000000000000000000000000000000000000000000002"
	task    = "containerd/io.containerd.runtime.v2.task/"
)

// cluster is a guest with a pod of Kubernetes, and containers of ctr and nerdctl.
func cluster(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.file("netns/cni-1", "")
	w.process(100, "0::/kubepods.slice/pod8c6e.slice/cri-containerd-"+sandbox+".scope", "netns/cni-1")
	w.process(101, "0::/kubepods.slice/pod8c6e.slice/cri-containerd-"+app+".scope", "netns/cni-1")
	w.bundle("k8s.io/"+sandbox, testdata(t, "sandbox.json", "NETNS", w.path("netns/cni-1")), 100)
	w.bundle("k8s.io/"+app, testdata(t, "container.json"), 101)

	plain := testdata(t, "plain.json")
	w.process(200, "0::/default/c1", "")
	w.bundle("default/c1", plain, 200)
	w.process(201, "0::/default/twin", "")
	w.bundle("default/twin", plain, 201)
	w.process(202, "0::/other/twin", "")
	w.bundle("other/twin", plain, 202)
	w.process(203, "0::/default/"+app, "") // a number that was used again
	w.bundle("default/reused", plain, 203)
	w.process(204, "0::/default/hostnet", "")
	w.bundle("default/hostnet", testdata(t, "hostnet.json"), 204)
	w.process(205, "0::/init.scope", "proc/self/ns/net")
	w.bundle("default/home", plain, 205)
	w.bundle("default/created", plain, 0)
	w.bundle("default/dead", plain, 999)
	w.bundle("default/badpid", plain, -4)
	w.bundle("default/broken", "{", 200)
	w.process(206, "0::/default/named", "")
	w.bundle("default/named", strings.Replace(plain, `"linux"`, `"annotations": {"nerdctl/name": "db"}, "linux"`, 1), 206)
	w.process(207, "", "proc/206/ns/net")
	w.bundle("default/joined", strings.Replace(plain, `"network"`, `"network", "path": "/proc/206/ns/net"`, 1), 207)
	w.bundle("default/.gone", plain, 200)
	return w
}

func TestResolveContainerd(t *testing.T) {
	w := cluster(t)
	pod := vnic.Container{ID: sandbox, Name: "shop/web-0", Pod: sandbox, Netns: w.path("netns/cni-1")}
	inPod := vnic.Container{ID: app, Name: "shop/web-0/app", Pod: sandbox, Netns: w.path("netns/cni-1")}
	for _, tt := range []struct {
		name, ref string
		want      vnic.Container
		err       error
		text      string
	}{
		{"sandbox by id", sandbox, pod, nil, ""},
		{"sandbox by pod", "web-0", pod, nil, ""},
		{"sandbox by namespace and pod", "shop/web-0", pod, nil, ""},
		{"beginning of two in one pod is the sandbox", "3fc0", pod, nil, ""},
		{"container by id", app, inPod, nil, ""},
		{"container by name", "app", inPod, nil, ""},
		{"container by full name", "shop/web-0/app", inPod, nil, ""},
		{"ctr", "c1", vnic.Container{ID: "c1", Pod: "c1", Netns: w.netns(200)}, nil, ""},
		{"with containerd's namespace", "other/twin", vnic.Container{ID: "twin", Pod: "twin", Netns: w.netns(202)}, nil, ""},
		{"nerdctl", "db", vnic.Container{ID: "named", Name: "db", Pod: "named", Netns: w.netns(206)}, nil, ""},
		{"in another's namespace", "joined", vnic.Container{ID: "joined", Pod: "named", Netns: w.netns(207)}, nil, ""},
		{"of two namespaces", "twin", vnic.Container{}, vnic.ErrUnknownContainer, "2 match: default/twin, other/twin; give the whole ID"},
		{"none", "nope", vnic.Container{}, vnic.ErrUnknownContainer, "it must be running"},
		{"pod of another namespace", "mall/web-0", vnic.Container{}, vnic.ErrUnknownContainer, ""},
		{"broken bundle", "broken", vnic.Container{}, vnic.ErrUnknownContainer, ""},
		{"bundle that is being deleted", "gone", vnic.Container{}, vnic.ErrUnknownContainer, ""},
		{"created", "created", vnic.Container{}, vnic.ErrUnknownPod, "it has no process; start it"},
		{"process gone", "dead", vnic.Container{}, vnic.ErrUnknownPod, "process 999 is gone"},
		{"process is another's", "reused", vnic.Container{}, vnic.ErrUnknownPod, "process 203 is another container's"},
		{"host network", "hostnet", vnic.Container{}, vnic.ErrUnknownPod, "shares the network of the guest"},
		{"process in the guest's own namespace", "home", vnic.Container{}, vnic.ErrUnknownPod, "shares the network of the guest"},
		{"bad process id", "badpid", vnic.Container{}, nil, `process id "-4" is none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := containers.Resolve(t.Context(), w.cfg, containers.Containerd, tt.ref)
			assert.Equal(t, tt.want, got)
			checkError(t, err, tt.err, tt.text)
		})
	}
}

// A path that lasts is taken only when it is the process's namespace: it may be
// invisible from here, or another's by now.
func TestLastingPath(t *testing.T) {
	w := cluster(t)
	require.NoError(t, os.Remove(w.path("netns/cni-1")))
	for _, name := range []string{"gone", "another's"} {
		got, err := containers.Resolve(t.Context(), w.cfg, containers.Containerd, app)
		require.NoError(t, err, name)
		assert.Equal(t, w.netns(101), got.Netns, name)
		w.file("netns/cni-1", "")
	}
}

// What lies in an engine's folder leads nowhere else, and nothing is waited for.
func TestStrangeFiles(t *testing.T) {
	w := newWorld(t)
	w.process(200, "", "")
	w.file("secret/config.json", testdata(t, "plain.json"))
	w.file("secret/init.pid", "200")
	w.bundle("default/sane", testdata(t, "plain.json"), 200)
	require.NoError(t, os.Symlink(w.path("secret"), w.path(task+"default/linked")))
	w.bundle("default/file", testdata(t, "plain.json"), 0)
	require.NoError(t, os.Symlink(w.path("secret/init.pid"), w.path(task+"default/file/init.pid")))
	w.bundle("default/pipe", testdata(t, "plain.json"), 0)
	require.NoError(t, unix.Mkfifo(w.path(task+"default/pipe/init.pid"), 0o600))
	w.bundle("default/big", `{"annotations":{"x":"`+strings.Repeat("y", 5<<20)+`"}}`, 200)
	for _, ref := range []string{"linked", "file", "pipe", "big"} {
		_, err := containers.Resolve(t.Context(), w.cfg, containers.Containerd, ref)
		require.Error(t, err, ref)
	}
	_, err := containers.Resolve(t.Context(), w.cfg, containers.Containerd, "sane")
	assert.NoError(t, err)
}

func TestResolveRefuses(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ name, runtime, ref string }{
		{"runtime", "lxc", "c1"},
		{"empty", containers.Docker, ""},
		{"path", containers.Containerd, "../../etc"},
		{"absolute", containers.Podman, "/etc/passwd"},
		{"query", containers.Docker, "a?b=c"},
		{"slash for docker", containers.Docker, "a/b"},
		{"newline", containers.Docker, "a\nb"},
		{"long", containers.Docker, strings.Repeat("a", 254)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := containers.Resolve(t.Context(), w.cfg, tt.runtime, tt.ref)
			assert.ErrorIs(t, err, vnic.ErrInvalid)
		})
	}
	for _, runtime := range []string{containers.Docker, containers.Containerd, containers.Podman} {
		_, err := containers.Resolve(t.Context(), w.cfg, runtime, "c1")
		assert.ErrorIs(t, err, vnic.ErrUnknownContainer, "without %s", runtime)
	}
}
