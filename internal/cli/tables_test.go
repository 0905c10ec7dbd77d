package cli

import (
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func render(t *testing.T, fn func(w *tabwriter.Writer)) string {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fn(w)
	require.NoError(t, w.Flush())
	return b.String()
}

func TestListShowsWhatPeopleCallPods(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	list := []*brfusev1.Attachment{
		{Id: "a", Pod: id, Manager: "cni", Labels: map[string]string{"k8s.namespace": "shop", "k8s.pod": "web-0"}, Ports: []string{"8080:80/tcp"}},
		{Id: "b", Pod: "c1", Manager: "cni", Labels: map[string]string{"k8s.pod": "lonely"}},
		{Id: "c", Pod: "c2", Labels: map[string]string{"container.name": "db-1"}},
		{Id: "d", Pod: id[1:], Manager: "docker", Labels: map[string]string{"k8s.namespace": "shop"}},
	}
	got := strings.Split(render(t, func(w *tabwriter.Writer) { listTable(w, list) }), "\n")
	assert.Equal(t, []string{"a", "0123456789ab", "shop/web-0", "-", "-", "-", "8080:80/tcp", "cni"}, strings.Fields(got[1]))
	assert.Equal(t, []string{"b", "c1", "lonely"}, strings.Fields(got[2])[:3])
	assert.Equal(t, []string{"c", "c2", "db-1"}, strings.Fields(got[3])[:3])
	assert.Equal(t, []string{"d", id[1:], "-"}, strings.Fields(got[4])[:3], "no name is no name")
}

func TestGetShowsAll(t *testing.T) {
	got := render(t, func(w *tabwriter.Writer) {
		attachTable(w, &brfusev1.Attachment{
			Id: "a", Manager: "docker", Labels: map[string]string{"docker.network": "n", "docker.endpoint": "e"},
			Ports: []string{"8080:80/tcp", "10.0.0.1:53:53/udp"}, IngressRate: 1_500_000, Handover: true, LastError: "no",
		})
	})
	for _, want := range []string{
		"manager docker", "label docker.endpoint=e\n", "ports 8080:80/tcp,10.0.0.1:53:53/udp",
		"bandwidth 1.5 Mbit/s to the pod, unlimited from it", "delivery to the engine", "last error no",
	} {
		assert.Contains(t, strings.Join(strings.FieldsFunc(got, func(r rune) bool { return r == ' ' }), " "), want)
	}
}
