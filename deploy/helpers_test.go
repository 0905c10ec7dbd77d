package deploy_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

// setting is a line of one of systemd's files.
type setting struct{ section, key, value string }

// settings reads one of systemd's or NetworkManager's files.
func settings(t *testing.T, name string) []setting {
	t.Helper()
	var all []setting
	section := ""
	lines := bufio.NewScanner(strings.NewReader(read(t, name)))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			require.Regexp(t, `^\[[A-Za-z-]+\]$`, line)
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			require.True(t, ok, "%s: %s", name, line)
			all = append(all, setting{section, key, value})
		}
	}
	require.NoError(t, lines.Err())
	return all
}

// flagsOf builds one of the programs and returns the flags that its help names.
func flagsOf(t *testing.T, program string) map[string]bool {
	t.Helper()
	bin := filepath.Join(t.TempDir(), program)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/"+program).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), bin, "--help").CombinedOutput()
	require.NoError(t, err, "%s", out)
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?--?([a-z][a-z-]*)`).FindAllStringSubmatch(string(out), -1) {
		known[m[1]] = true
	}
	require.True(t, known["log-level"], "%s", out)
	return known
}

// flagsIn returns the flags that a command line has.
func flagsIn(args ...string) []string {
	var names []string
	for _, arg := range args {
		if name := strings.TrimLeft(arg, "-"); name != arg {
			name, _, _ = strings.Cut(name, "=")
			names = append(names, name)
		}
	}
	return names
}
