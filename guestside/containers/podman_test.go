package containers_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/guestside/containers"
	"github.com/brfuse/brfuse/vnic"
)

func TestResolvePodman(t *testing.T) {
	const (
		web  = "ccab301d8e9bcbe579e93284e64eb23ebfb6fa7eaf945e03fb165fe758ba62c9"
		side = "2599c4c9d20ef133990ce5786d7a173ea0e15d182b1254a591a6201be0227af7"
		temp = "aaaa301d8e9bcbe579e93284e64eb23ebfb6fa7eaf945e03fb165fe758ba62c9"
	)
	w := newWorld(t)
	plain := testdata(t, "plain.json")
	at := func(path string) string {
		return strings.Replace(plain, `"network"`, `"network", "path": "`+path+`"`, 1)
	}
	w.file("netns/netns-1", "")
	w.process(100, "0::/machine.slice/libpod-"+web+".scope/container", "netns/netns-1")
	w.process(101, "0::/machine.slice/libpod-"+side+".scope/container", "netns/netns-1")
	w.process(102, "", "")
	w.file("lib/overlay-containers/containers.json", testdata(t, "podman-containers.json"))
	w.file("run/overlay-containers/volatile-containers.json", `[{"id":"`+temp+`","names":["temp"]},{"id":"../../x","names":["evil"]}]`)
	w.file("lib/overlay-containers/"+web+"/userdata/config.json", at(w.path("netns/netns-1")))
	w.file("run/overlay-containers/"+web+"/userdata/pidfile", "100\n")
	w.file("lib/overlay-containers/"+side+"/userdata/config.json", at("/proc/100/ns/net"))
	w.file("run/overlay-containers/"+side+"/userdata/pidfile", "101")
	w.file("run/overlay-containers/"+temp+"/userdata/config.json", plain)
	w.file("run/overlay-containers/"+temp+"/userdata/pidfile", "102")
	w.file("lib/overlay-images/images.json", "[]")

	for _, tt := range []struct {
		name, ref string
		want      vnic.Container
		err       error
	}{
		{"name", "web", vnic.Container{ID: web, Name: "web", Pod: web, Netns: w.path("netns/netns-1")}, nil},
		{"id", web, vnic.Container{ID: web, Name: "web", Pod: web, Netns: w.path("netns/netns-1")}, nil},
		{"in another's namespace", "side", vnic.Container{ID: side, Name: "side", Pod: web, Netns: w.path("netns/netns-1")}, nil},
		{"beginning", "2599c", vnic.Container{ID: side, Name: "side", Pod: web, Netns: w.path("netns/netns-1")}, nil},
		{"volatile", "temp", vnic.Container{ID: temp, Name: "temp", Pod: temp, Netns: w.netns(102)}, nil},
		{"ambiguous", "2599", vnic.Container{}, vnic.ErrUnknownContainer},
		{"none", "nope", vnic.Container{}, vnic.ErrUnknownContainer},
		{"an ID that is a path", "evil", vnic.Container{}, vnic.ErrUnknownContainer},
		{"not started", "idle", vnic.Container{}, vnic.ErrUnknownPod},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := containers.Resolve(t.Context(), w.cfg, containers.Podman, tt.ref)
			assert.Equal(t, tt.want, got)
			assert.ErrorIs(t, err, tt.err)
		})
	}
	w.file("lib/overlay-containers/containers.json", "[")
	_, err := containers.Resolve(t.Context(), w.cfg, containers.Podman, "web")
	assert.ErrorContains(t, err, "decode list of containers")
}
