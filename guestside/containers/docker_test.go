package containers_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/containers"
	"github.com/brfuse/brfuse/vnic"
)

// docker serves answers about containers on the world's socket.
func docker(t *testing.T, w *world, answers map[string]string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", w.cfg.DockerSocket)
	require.NoError(t, err)
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ref := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/containers/"), "/json")
		answer, ok := answers[ref]
		switch {
		case r.Method != http.MethodGet || !ok:
			http.Error(rw, `{"message":"No such container: `+ref+`"}`, http.StatusNotFound)
		case answer == "ambiguous":
			http.Error(rw, `{"message":"Multiple IDs found with provided prefix: `+ref+`"}`, http.StatusInternalServerError)
		case answer == "sick":
			http.Error(rw, "out of order", http.StatusInternalServerError)
		default:
			_, _ = rw.Write([]byte(answer))
		}
	})}}
	srv.Start()
	t.Cleanup(srv.Close)
}

func TestResolveDocker(t *testing.T) {
	const (
		web  = "e21bd3168be4ad8aa0001526afe35fb9da57c4b7563f738ced60b30fb567194c"
		side = "6b0ac63daf1a86cc1bbb09d57d489b95a38f55825fe8cb6ef3040f2e8d1fbf38"
	)
	w := newWorld(t)
	w.file("netns/99802578fbad", "")
	w.process(100, "5:devices:/docker/"+web+"\n0::/docker/"+web, "netns/99802578fbad")
	w.process(101, "0::/system.slice/docker-"+side+".scope", "netns/99802578fbad")
	answer := testdata(t, "docker-container.json", "SANDBOXKEY", w.path("netns/99802578fbad"))
	with := func(oldnew ...string) string { return strings.NewReplacer(oldnew...).Replace(answer) }
	join := func(other string) string {
		return with(web, side, "/web", "/side", `"fused"`, `"container:`+other+`"`, w.path("netns/99802578fbad"), "", `"Pid":100`, `"Pid":101`)
	}
	docker(t, w, map[string]string{
		"web": answer, web: answer, "e21b": answer,
		"side": join(web), "orphan": join("gone"), "circle": join("circle"), "strange": join("../x"),
		"idle":    with(`"Running":true`, `"Running":false`, `"Pid":100`, `"Pid":0`),
		"hosty":   with(`"fused"`, `"host"`),
		"foreign": with("netns/99802578fbad", "netns/elsewhere"),
		"badid":   with(web, "../../etc"), "nojson": "<html>", "many": "ambiguous", "sick": "sick",
		"big": `"` + strings.Repeat("x", 9<<20) + `"`,
	})
	ofWeb := vnic.Container{ID: web, Name: "web", Pod: web, Netns: w.path("netns/99802578fbad")}
	for _, tt := range []struct {
		name, ref string
		want      vnic.Container
		err       error
		text      string
	}{
		{"name", "web", ofWeb, nil, ""},
		{"id", web, ofWeb, nil, ""},
		{"beginning", "e21b", ofWeb, nil, ""},
		{"in another's namespace", "side", vnic.Container{ID: side, Name: "side", Pod: web, Netns: w.path("netns/99802578fbad")}, nil, ""},
		{"namespace not to be seen from here", "foreign", vnic.Container{ID: web, Name: "web", Pod: web, Netns: w.netns(100)}, nil, ""},
		{"stopped", "idle", vnic.Container{}, vnic.ErrUnknownPod, "it is stopped; start it"},
		{"host network", "hosty", vnic.Container{}, vnic.ErrUnknownPod, "shares the network of the guest"},
		{"none", "nope", vnic.Container{}, vnic.ErrUnknownContainer, "No such container: nope"},
		{"joined to none", "orphan", vnic.Container{}, vnic.ErrUnknownContainer, "it shares the network of container \"gone\""},
		{"joined to a path", "strange", vnic.Container{}, vnic.ErrInvalid, ""},
		{"several", "many", vnic.Container{}, vnic.ErrUnknownContainer, "Multiple IDs"},
		{"docker is sick", "sick", vnic.Container{}, nil, `docker says 500 "out of order"`},
		{"no json", "nojson", vnic.Container{}, nil, "decode docker's answer"},
		{"malformed id", "badid", vnic.Container{}, nil, "malformed"},
		{"too much", "big", vnic.Container{}, nil, "is longer than 8388608 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := containers.Resolve(t.Context(), w.cfg, containers.Docker, tt.ref)
			assert.Equal(t, tt.want, got)
			checkError(t, err, tt.err, tt.text)
		})
	}
	_, err := containers.Resolve(t.Context(), w.cfg, containers.Docker, "circle")
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = containers.Resolve(ctx, w.cfg, containers.Docker, "web")
	assert.ErrorIs(t, err, context.Canceled)
}
