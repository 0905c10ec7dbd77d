package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// maxSize is how large the program may be, in bytes. It is read anew for every
// pod.
const maxSize = 6 << 20

// build builds the program as it is released.
func build(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "brfuse")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

func TestProgram(t *testing.T) {
	file := build(t)
	fi, err := os.Stat(file)
	require.NoError(t, err)
	assert.Less(t, fi.Size(), int64(maxSize))
	bin, err := elf.Open(file)
	require.NoError(t, err)
	defer bin.Close()
	for _, p := range bin.Progs {
		assert.NotEqual(t, elf.PT_INTERP, p.Type, "it is linked statically")
	}

	for _, tt := range []struct {
		name, stdin string
		env         []string
		code        int
		stdout      string // JSON, or empty
		stderr      string
	}{
		{"VERSION", "", []string{"CNI_COMMAND=VERSION"}, 0, `{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`, ""},
		{
			"podman's VERSION", "",
			[]string{"CNI_COMMAND=VERSION", "CNI_NETNS=dummy", "CNI_IFNAME=dummy", "CNI_PATH=dummy"},
			0,
			`{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`, "",
		},
		{"by hand", "", nil, 0, "", "CNI plugin brfuse"},
		{
			"no variables", "{}",
			[]string{"CNI_COMMAND=ADD"},
			1,
			`{"cniVersion":"1.1.0","code":4,"msg":"required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"}`, "",
		},
		{
			"no agent", `{"cniVersion":"1.1.0","name":"a","type":"brfuse","socket":"/nowhere"}`,
			[]string{"CNI_COMMAND=STATUS", "CNI_PATH=/x"},
			1,
			`{"cniVersion":"1.1.0","code":50,"msg":"brfuse-agent is unavailable","details":"ask brfuse-agent at /nowhere: dial unix /nowhere: connect: no such file or directory; start it (systemctl start brfuse-agent), or set \"socket\" in the CNI configuration"}`, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), file)
			cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = tt.env, strings.NewReader(tt.stdin), &stdout, &stderr
			err := cmd.Run()
			if tt.code == 0 {
				require.NoError(t, err)
			} else {
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit)
				assert.Equal(t, tt.code, exit.ExitCode())
			}
			if tt.stdout == "" {
				assert.Empty(t, stdout.String())
			} else {
				require.True(t, json.Valid(stdout.Bytes()), "%s", &stdout)
				assert.JSONEq(t, tt.stdout, stdout.String())
			}
			if tt.stderr == "" {
				assert.Empty(t, stderr.String())
			}
			assert.Contains(t, stderr.String(), tt.stderr)
		})
	}
}

// What the program must not be made of: each takes long to start.
func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, heavy := range []string{"net/http", "crypto/tls", "google.golang.org/", "github.com/spf13/", "github.com/containerd/", "go.opentelemetry.io/", "github.com/containernetworking/cni/libcni"} {
			assert.False(t, strings.HasPrefix(pkg, heavy), "%s", pkg)
		}
	}
}
