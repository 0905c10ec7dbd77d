package containers_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/containers"
)

// world is a guest's files: a process table, and the folders of engines. Files
// stand for namespaces; those that are one file are one namespace.
type world struct {
	t   *testing.T
	dir string
	cfg containers.Config
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	w := &world{t, dir, containers.Config{
		DockerSocket: at("docker.sock"), ContainerdStates: []string{at("k3s"), at("containerd")},
		PodmanRoot: at("lib"), PodmanRunRoot: at("run"), Proc: at("proc"),
	}}
	w.file("proc/self/ns/net", "")
	return w
}

// path returns the path of a file of the world.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) file(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o700))
	require.NoError(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
}

// process makes a process in a namespace; netns names one that is there, or is "".
func (w *world) process(pid int, cgroup, netns string) {
	w.t.Helper()
	dir := "proc/" + strconv.Itoa(pid)
	w.file(dir+"/cgroup", cgroup)
	if netns == "" {
		w.file(dir+"/ns/net", "")
		return
	}
	require.NoError(w.t, os.MkdirAll(w.path(dir+"/ns"), 0o700))
	require.NoError(w.t, os.Link(w.path(netns), w.path(dir+"/ns/net")))
}

// netns returns the path of a process's namespace.
func (w *world) netns(pid int) string { return w.path("proc/" + strconv.Itoa(pid) + "/ns/net") }

// bundle makes a task of containerd's.
func (w *world) bundle(id, spec string, pid int) {
	w.t.Helper()
	dir := "containerd/io.containerd.runtime.v2.task/" + id
	w.file(dir+"/config.json", spec)
	if pid != 0 {
		w.file(dir+"/init.pid", strconv.Itoa(pid))
	}
}

// testdata reads a file, and replaces pairs of words in it.
func testdata(t *testing.T, name string, oldnew ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return strings.NewReplacer(oldnew...).Replace(string(b))
}

// checkError checks for a sentinel, if one is wanted, and a text.
func checkError(t *testing.T, err, want error, text string) {
	t.Helper()
	if want == nil && text == "" {
		require.NoError(t, err)
		return
	}
	require.ErrorContains(t, err, text)
	if want != nil {
		require.ErrorIs(t, err, want)
	}
}
