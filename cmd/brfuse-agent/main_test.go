package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // regular expressions
	}{
		{"version", []string{"-version"}, 0, `^brfuse-agent version \S+\n$`, `^$`},
		{"help", []string{"-h"}, 0, `(?s)^Usage of brfuse-agent:.*-channel.*org\.brfuse\.agent\.0`, `^$`},
		{"worker that is no agent's", []string{"-bench-worker"}, 2, `^$`, `flag provided but not defined: -bench-worker`},
		{"unknown flag", []string{"-frobnicate"}, 2, `^$`, `^brfuse-agent: flag provided but not defined: -frobnicate; see brfuse-agent -h\n$`},
		{"argument", []string{"start"}, 2, `^$`, `^brfuse-agent: unexpected argument "start"; see brfuse-agent -h\n$`},
		{"log level", []string{"-log-level", "loud"}, 2, `^$`, `^brfuse-agent: invalid value "loud" .*; see brfuse-agent -h\n$`},
		{"log format", []string{"-log-format", "xml"}, 2, `^$`, `^brfuse-agent: .*xml.*; see brfuse-agent -h\n$`},
		{"network", []string{"-network", "a b"}, 2, `^$`, `^brfuse-agent: network name "a b": .*; see brfuse-agent -h\n$`},
		{"channel", []string{"-channel", "tcp:1", "-cni-socket=", "-docker-plugin="}, 1, `^$`, `^brfuse-agent: channel "tcp:1" is neither a port's name, .*\n$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			assert.Equal(t, tt.code, run(t.Context(), tt.args, &stdout, &stderr))
			assert.Regexp(t, tt.stdout, stdout.String())
			assert.Regexp(t, tt.stderr, stderr.String())
		})
	}
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr strings.Builder
	dir := t.TempDir()
	assert.Zero(t, run(ctx, []string{
		"-channel", "unix:" + dir + "/a.sock", "-cni-socket", dir + "/cni.sock", "-docker-plugin", dir + "/brfuse.sock", "-state", dir,
	}, &stdout, &stderr))
	assert.Empty(t, stderr.String())
}
