package containers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func seed(f *testing.F, names ...string) {
	f.Helper()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(b)
	}
}

func FuzzSpec(f *testing.F) {
	seed(f, "sandbox.json", "container.json", "plain.json", "hostnet.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSpec(b)
		if err != nil {
			return
		}
		s.network()
		e := criEntry("c1", s)
		assert.True(t, e.pod == "" || validID(e.pod))
		for _, name := range e.names {
			assert.NotEmpty(t, name)
		}
	})
}

func FuzzStored(f *testing.F) {
	seed(f, "podman-containers.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseStored(b)
		for _, s := range list {
			assert.True(t, err == nil && validID(s.ID) && filepath.IsLocal(s.ID))
		}
	})
}

func FuzzInspected(f *testing.F) {
	seed(f, "docker-container.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := parseInspected(b); err == nil {
			assert.True(t, validID(in.ID))
		}
		assert.LessOrEqual(t, len(message(b)), 256)
	})
}

func FuzzPID(f *testing.F) {
	f.Add([]byte("4711\n"))
	f.Add([]byte("-1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pid, err := parsePID(b); err == nil {
			assert.Positive(t, pid)
		}
	})
}
