package cnitest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cnitest"
)

// cnitoolSteps are commands with their exit codes and parts of their output. @NETNS
// is the pod's path, @POD its name.
func cnitoolSteps() []struct {
	command string
	code    int
	output  string
} {
	return []struct {
		command string
		code    int
		output  string
	}{
		{"cnitool status pods @NETNS", 0, ""},
		{"cnitool add pods @NETNS", 0, `"address": "10.99.1.2/24"`},
		{"cnitool check pods @NETNS", 0, ""},
		{"cnitool add pods @NETNS", 1, "CNI_IFNAME eth0 exists"},
		{"ip -n @POD link set eth0 down", 0, ""},
		{"cnitool check pods @NETNS", 1, "down"},
		{"cnitool del pods @NETNS", 0, ""},
		{"cnitool del pods @NETNS", 0, ""},
		{"cnitool add pods @NETNS", 0, `"sandbox": "@NETNS"`},
		{"cnitool gc pods @NETNS", 0, ""},
		{"ip -n @POD link show eth0", 1, ""},
		{"cnitool add pods /run/netns/cnitest-never", 1, "CNI_NETNS"},
	}
}

// TestIntegrationCnitool is a tour with the reference tool. It keeps its results
// in /var/lib/cni, so it has a /var/lib of its own.
func TestIntegrationCnitool(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	build(t, filepath.Join(p.dir, "cnitool"), "github.com/containernetworking/cni/cnitool")
	confs := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(confs, "10-pods.conflist"), fmt.Appendf(nil,
		`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":%q,"network":"blue","socket":%q}]}`, cnitest.Brfuse, p.socket), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const name = "cnitest-tool"
	e := p.env()
	netns, err := e.AddNetns(ctx, name)
	require.NoError(t, err)
	defer func() { assert.NoError(t, e.DelNetns(context.WithoutCancel(ctx), name)) }()

	replace := strings.NewReplacer("@NETNS", netns, "@POD", name)
	var script strings.Builder
	script.WriteString("set -u; mount -t tmpfs none /var/lib; PATH=" + p.dir + ":$PATH; export PATH CNI_PATH=" + p.dir + " NETCONFPATH=" + confs + "\n")
	const mark = "== step "
	for _, s := range cnitoolSteps() {
		script.WriteString("echo '" + mark + "'; " + replace.Replace(s.command) + " 2>&1; echo \" code $?\"\n")
	}
	var out string
	require.NoError(t, p.home.Do(func() (err error) {
		out, err = command(ctx, "unshare", "-m", "/bin/sh", "-c", script.String())
		return err
	}))
	parts := strings.Split(out, mark)[1:]
	require.Len(t, parts, len(cnitoolSteps()))
	for i, s := range cnitoolSteps() {
		assert.Contains(t, parts[i], fmt.Sprintf(" code %d", s.code), "%s", s.command)
		assert.Contains(t, parts[i], replace.Replace(s.output), "%s", s.command)
	}
	left, err := p.host.list(ctx)
	require.NoError(t, err)
	assert.Empty(t, left)
}
