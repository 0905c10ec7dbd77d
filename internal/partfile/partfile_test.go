package partfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFile(t *testing.T) {
	for _, tc := range []struct {
		name, before, write, want string
	}{
		{"new", "", "new", "new"},
		{"in the place of another", "old", "new", "new"},
		{"nothing was written", "old", "", "old"},
		{"nothing there and nothing written", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.jsonl")
			if tc.before != "" {
				require.NoError(t, os.WriteFile(path, []byte(tc.before), 0o600))
			}
			f, err := Create(path)
			require.NoError(t, err)
			_, err = f.Write([]byte(tc.write))
			require.NoError(t, err)
			got, err := os.ReadFile(path)
			assert.Equal(t, tc.before, string(got), "before it is closed")
			assert.Equal(t, tc.before == "", err != nil)
			require.NoError(t, f.Close())
			got, err = os.ReadFile(path)
			assert.Equal(t, tc.want, string(got))
			assert.Equal(t, tc.want == "", err != nil)
			assert.NoFileExists(t, path+".part")
		})
	}
}

func TestNoRegularFile(t *testing.T) {
	f, err := Create(os.DevNull)
	require.NoError(t, err)
	_, err = f.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	assert.NoFileExists(t, os.DevNull+".part")
}

func TestNoFolder(t *testing.T) {
	_, err := Create(filepath.Join(t.TempDir(), "none", "x"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
