package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/bench/internal/window"
	"github.com/brfuse/brfuse/internal/netnsx"
)

func TestUsage(t *testing.T) {
	cases := []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "name a command"},
		{"command", []string{"sing"}, `no command "sing"`},
		{"verb", []string{"load", "carry"}, `load: wrong usage: want one of ["serve" "run"]`},
		{"flag", []string{"await", "--fast"}, "await: wrong usage: flag provided but not defined: -fast"},
		{"missing flag", []string{"route", "add", "--to", "10.0.0.0/8", "--dev", "lo"}, "--via is required"},
		{"argument", []string{"cost", "more"}, `unexpected argument "more"`},
		{"port", []string{"load", "serve", "--port", "65536"}, "port 65536"},
		{"spec", []string{"load", "run", "--to", "127.0.0.1:1", "--spec", "{"}, "unexpected end of JSON input"},
		{"topology", []string{"topology", "up", "--spec", "[]"}, "cannot unmarshal array"},
		{"pids", []string{"load", "run", "--to", "127.0.0.1:1", "--spec", "{}", "--pids", "1,x"}, "pids: wrong usage"},
		{"path for a name", []string{"netns", "add", "../x"}, "want one name"},
		{"two names", []string{"netns", "del", "a", "b"}, "want one name"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out, errs strings.Builder
			assert.Equal(t, 2, run(t.Context(), c.args, &out, &errs))
			assert.Contains(t, errs.String(), c.want)
			assert.Empty(t, out.String())
		})
	}
}

func TestSplit(t *testing.T) {
	assert.Empty(t, slices.Collect(split("")))
	assert.Equal(t, []string{"a", "b"}, slices.Collect(split("a,,b")))
}

func TestIntegrationNetns(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("bench-test-%d", os.Getpid())
	path := filepath.Join(netnsx.Dir, name)
	do := func(code int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		require.Equal(t, code, run(t.Context(), args, &out, &errs), errs.String())
		return out.String() + errs.String()
	}
	do(0, "netns", "add", name)
	t.Cleanup(func() { do(0, "netns", "del", name) })
	assert.Contains(t, do(1, "netns", "add", name), "file exists")
	ns, err := netnsx.Open(name)
	require.NoError(t, err)
	var links map[string][]string
	var out, errs strings.Builder
	require.NoError(t, ns.Do(func() error {
		run(t.Context(), []string{"offloads"}, &out, &errs)
		return nil
	}))
	require.NoError(t, ns.Close())
	require.NoError(t, json.Unmarshal([]byte(out.String()), &links), errs.String())
	assert.Contains(t, links, "lo")
	assert.Len(t, links, 1)
	do(0, "netns", "del", name)
	assert.NoFileExists(t, path)
	do(0, "netns", "del", name) // again
}

func TestAwait(t *testing.T) {
	var out, errs strings.Builder
	// Port 1 of the loopback interface refuses, which is an answer.
	assert.Equal(t, 0, run(t.Context(), []string{"await", "--to", "127.0.0.1:1"}, &out, &errs), errs.String())
}

// TestTeller: the hypervisor counts within what the guest does, and not the guest's
// reading of its counters.
func TestTeller(t *testing.T) {
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	heard := make(chan string, 4)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		defer there.Close()
		in := bufio.NewReader(there)
		for range 2 {
			word, _ := in.ReadString('\n')
			heard <- strings.TrimSpace(word)
			_, _ = there.Write([]byte("\n"))
		}
	}()
	teller := &teller{conn: here, in: bufio.NewReader(here)}
	stop := teller.around(func() func() json.RawMessage {
		heard <- "first look"
		return func() json.RawMessage {
			heard <- "second look"
			return json.RawMessage("{}")
		}
	})()
	assert.JSONEq(t, "{}", string(stop()))
	<-answered
	require.NoError(t, teller.err)
	for _, want := range []string{"first look", window.Begin, window.End, "second look"} {
		assert.Equal(t, want, <-heard)
	}
}
