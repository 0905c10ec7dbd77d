package cli

import (
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	got := strings.Split(render(t, func(w *tabwriter.Writer) { listTable(w, list, false) }), "\n")
	assert.Equal(t, []string{"a", "0123456789ab", "shop/web-0", "-", "-", "-", "8080:80/tcp", "cni"}, strings.Fields(got[1]))
	assert.Equal(t, []string{"b", "c1", "lonely"}, strings.Fields(got[2])[:3])
	assert.Equal(t, []string{"c", "c2", "db-1"}, strings.Fields(got[3])[:3])
	assert.Equal(t, []string{"d", id[1:], "-"}, strings.Fields(got[4])[:3], "no name is no name")
}

func TestListOfAllShowsHypervisors(t *testing.T) {
	list := []*brfusev1.Attachment{
		{Id: "a", Vm: "vm1", Hypervisor: "hv1"},
		{Id: "b", Vm: "vm2", Hypervisor: "hv2", HypervisorDead: true},
		{Id: "c", Vm: "vm3"},
	}
	got := strings.Split(render(t, func(w *tabwriter.Writer) { listTable(w, list, true) }), "\n")
	assert.Equal(t, []string{"HOST", "ID", "VM"}, strings.Fields(got[0])[:3])
	assert.Equal(t, []string{"hv1", "a", "vm1"}, strings.Fields(got[1])[:3])
	assert.Equal(t, []string{"hv2", "(dead)", "b", "vm2"}, strings.Fields(got[2])[:4])
	assert.Equal(t, []string{"-", "c", "vm3"}, strings.Fields(got[3])[:3])
}

func TestHostTable(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	list := []*brfusev1.Hypervisor{
		{Name: "hv1", State: "alive", Underlay: "192.0.2.1", Mtu: 1500, Api: "192.0.2.1:7443", Version: "v1", Started: at(90*time.Minute + time.Millisecond), Attachments: 7},
		{Name: "hv2", State: "dead", Started: at(time.Hour)},
		{Name: "hv3", State: "alive", Started: at(-time.Second)}, // by a clock that differs
	}
	got := render(t, func(w *tabwriter.Writer) { hostTable(w, list, now) })
	var rows []string
	for row := range strings.Lines(got) {
		rows = append(rows, strings.Join(strings.Fields(row), " "))
	}
	assert.Equal(t, []string{
		"NAME STATE UNDERLAY MTU API VERSION UP ATTACHMENTS",
		"hv1 alive 192.0.2.1 1500 192.0.2.1:7443 v1 1h30m0s 7",
		"hv2 dead - 0 - - - 0",
		"hv3 alive - 0 - - 0s 0",
	}, rows)
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
