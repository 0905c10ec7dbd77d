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

func TestPlan(t *testing.T) {
	for _, c := range []struct{ vnics, bridges, slots int }{
		{1, 1, 31}, {31, 1, 31}, {32, 2, 62}, {62, 2, 62}, {248, 8, 248}, {434, 14, 434},
	} {
		l := plan(t, c.vnics)
		assert.Equal(t, c.bridges, l.Bridges, c.vnics)
		assert.Equal(t, c.slots, l.Slots, c.vnics)
		assert.Equal(t, c.vnics, l.VNICs)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, n := range []int{-1, 0, 435} {
		_, err := Plan(n)
		require.ErrorIs(t, err, vnic.ErrInvalid)
	}
	_, err := Plan(435)
	require.EqualError(t, err, "plan room for 435 vnics: 434 is the most for one vm, since firmware finds I/O windows for no more than "+
		"14 bridges of 31 slots; spread the pods over more vms: invalid argument")
}

func TestGolden(t *testing.T) {
	l := plan(t, 40)
	l.QMP, l.Channel, l.FirstIndex = "/run/a,b.qmp", "/run/<a>.agent", 5
	golden(t, "qemu-40.txt", strings.Join(l.QEMUArgs(), "\n")+"\n")
	golden(t, "libvirt-40.xml", l.LibvirtXML())
	golden(t, "notes-40.txt", strings.Join(l.Notes(), "\n")+"\n")
	golden(t, "notes-434.txt", strings.Join(plan(t, 434).Notes(), "\n")+"\n")
}

func TestIDsAreUniqueAndNoVNICs(t *testing.T) {
	seen := map[string]bool{}
	for _, arg := range plan(t, MaxVNICs).QEMUArgs() {
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
	assert.Len(t, seen, 2*MaxBridges+3)
}

func TestLibvirtXMLIsWellFormed(t *testing.T) {
	text := "<domain>" + plan(t, MaxVNICs).LibvirtXML() + "</domain>"
	dec := xml.NewDecoder(strings.NewReader(text))
	controllers := map[string]bool{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
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
	assert.Len(t, controllers, 2*MaxBridges)
}
