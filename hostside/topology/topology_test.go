package topology

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

func plan(t *testing.T, vnics int) Layout {
	t.Helper()
	l, err := Plan(vnics)
	require.NoError(t, err)
	return l
}

func planFor(t *testing.T, w Wish) Layout {
	t.Helper()
	l, err := PlanFor(w)
	require.NoError(t, err)
	return l
}

func TestPlan(t *testing.T) {
	for _, c := range []struct{ vnics, bridges, slots int }{
		{1, 1, 31}, {31, 1, 31}, {32, 2, 62}, {62, 2, 62}, {248, 8, 248}, {434, 14, 434}, {435, 15, 465}, {961, 31, 961},
	} {
		l := plan(t, c.vnics)
		assert.Equal(t, c.bridges, l.Bridges, c.vnics)
		assert.Equal(t, c.slots, l.Slots, c.vnics)
		assert.Equal(t, c.vnics, l.VNICs)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		wish Wish
		says string
	}{
		{"negative", Wish{VNICs: -1}, "at least 1"},
		{"none", Wish{}, "at least 1"},
		{"too many", Wish{VNICs: 962}, "961 is the most for one vm, since QEMU has memory sections for no more; spread the pods over more vms"},
		{"too many for a pc", Wish{VNICs: 745, Machine: PC}, "744 is the most for one vm"},
		{"another machine", Wish{VNICs: 1, Machine: "virt"}, `machine "virt" is neither q35 nor pc`},
		{"cpus", Wish{VNICs: 1, CPUs: -1}, "-1 cpus"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := PlanFor(c.wish)
			require.ErrorIs(t, err, vnic.ErrInvalid)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		wish Wish
	}{
		{"40", Wish{VNICs: 40}},
		{"434", Wish{VNICs: 434, CPUs: 2}},
		{"500", Wish{VNICs: 500, CPUs: 4}},
		{"pc", Wish{VNICs: 62, Machine: PC}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := planFor(t, c.wish)
			l.QMP, l.Channel, l.FirstIndex = "/run/a,b.qmp", "/run/<a>.agent", 5
			golden(t, "qemu-"+c.name+".txt", strings.Join(l.QEMUArgs(), "\n")+"\n")
			golden(t, "libvirt-"+c.name+".xml", l.LibvirtXML())
			golden(t, "notes-"+c.name+".txt", strings.Join(l.Notes(), "\n")+"\n")
		})
	}
}

func TestNoCommandlineWithoutNeed(t *testing.T) {
	l := planFor(t, Wish{VNICs: 31, CPUs: 1})
	l.QMP = ""
	assert.NotContains(t, l.LibvirtXML(), "qemu:commandline")
	assert.NotContains(t, l.QEMUArgs(), "-qmp")
}

// TestVectorsOfAll are those that libvirt's domains have all vNICs have.
func TestVectorsOfAll(t *testing.T) {
	for _, c := range []struct {
		vnics, cpus int
		want        []string
	}{
		{31, 1, nil},
		{62, 1, []string{"-global", "virtio-net-pci.vectors=2"}},
		{62, 2, nil},
		{248, 2, []string{"-global", "virtio-net-pci.vectors=0"}},
		{248, 3, []string{"-global", "virtio-net-pci.vectors=2"}},
		{248, 4, nil},
		{434, 8, nil},
	} {
		assert.Equal(t, c.want, planFor(t, Wish{VNICs: c.vnics, CPUs: c.cpus}).LibvirtArgs(), "%d on %d", c.vnics, c.cpus)
	}
	assert.Contains(t, planFor(t, Wish{VNICs: 961, CPUs: 64}).LibvirtArgs(), "virtio-net-pci.vectors=0", "QEMU has no sections for them")
}

func TestCostGrows(t *testing.T) {
	last := Cost{}
	for n := 31; n <= MaxVNICs; n += 31 {
		c := planFor(t, Wish{VNICs: n, CPUs: 4}).Cost()
		all := 0
		for _, of := range c.Vectors {
			all += of
		}
		assert.Equal(t, n, all)
		assert.Greater(t, c.PlugMS, last.PlugMS)
		assert.Greater(t, c.VNICKiB, last.VNICKiB)
		last = c
	}
}

func TestIDsAreUniqueAndNoVNICs(t *testing.T) {
	for _, c := range []struct {
		wish Wish
		ids  int
	}{
		{Wish{VNICs: 434}, 2*14 + 3},
		{Wish{VNICs: MaxVNICs}, 2 + 31 + 3},
		{Wish{VNICs: 744, Machine: PC}, 24 + 3},
	} {
		seen := map[string]bool{}
		for _, arg := range planFor(t, c.wish).QEMUArgs() {
			for option := range strings.SplitSeq(arg, ",") {
				if id, ok := strings.CutPrefix(option, "id="); ok {
					assert.False(t, seen[id], id)
					seen[id] = true
					_, isVNIC := vnic.IDFromName(id)
					assert.False(t, isVNIC, id)
					assert.True(t, strings.HasPrefix(id, "brf-"), id)
				}
			}
		}
		assert.Len(t, seen, c.ids)
	}
}

func TestLibvirtXMLIsWellFormed(t *testing.T) {
	for vnics, want := range map[int]int{434: 28, MaxVNICs: 2 + 31} {
		assert.Len(t, controllersOf(t, plan(t, vnics)), want)
	}
}

func controllersOf(t *testing.T, l Layout) map[string]bool {
	t.Helper()
	text := "<domain>" + l.LibvirtXML() + "</domain>"
	dec := xml.NewDecoder(strings.NewReader(text))
	controllers := map[string]bool{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return controllers
		}
		require.NoError(t, err)
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "controller" {
			for _, a := range e.Attr {
				if a.Name.Local == "index" {
					assert.False(t, controllers[a.Value], "index %s is there twice", a.Value)
					controllers[a.Value] = true
				}
			}
		}
	}
}
