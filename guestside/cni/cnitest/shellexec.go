package cnitest

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// ShellExec runs plugins somewhere else, such as in a guest, by shell scripts.
type ShellExec struct {
	// Run runs a script by /bin/sh. A code other than 0 is no error.
	Run func(ctx context.Context, script string) (stdout, stderr string, code int, err error)
	version.PluginDecoder
}

var _ invoke.Exec = (*ShellExec)(nil)

// FindInPath implements [invoke.Exec]. It takes the first folder.
func (*ShellExec) FindInPath(plugin string, paths []string) (string, error) {
	if len(paths) == 0 {
		return "", fmt.Errorf("find plugin %s: no folders", plugin)
	}
	return path.Join(paths[0], plugin), nil
}

// ExecPlugin implements [invoke.Exec]. Of the environment the plugin gets what
// is CNI's.
func (s *ShellExec) ExecPlugin(ctx context.Context, pluginPath string, stdin []byte, environ []string) ([]byte, error) {
	var script strings.Builder
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, "CNI_") {
			fmt.Fprintf(&script, "export %s=%s\n", k, quote(v))
		}
	}
	fmt.Fprintf(&script, "printf %%s %s | %s\n", quote(string(stdin)), quote(pluginPath))
	stdout, stderr, code, err := s.Run(ctx, script.String())
	if err != nil {
		return nil, fmt.Errorf("run plugin %s: %w", pluginPath, err)
	}
	if code == 0 {
		return []byte(stdout), nil
	}
	var e types.Error
	if json.Unmarshal([]byte(stdout), &e) != nil {
		return nil, fmt.Errorf("plugin %s: exit code %d: %s%s", pluginPath, code, stdout, stderr)
	}
	return nil, &e
}

// quote returns s as one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
