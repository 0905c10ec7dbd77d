package engines

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestArchive(t *testing.T) {
	images := []image{{"docker.io/library/a:1", []string{"/bin/sh"}}, {"docker.io/library/b:1", []string{"/bin/sleep", "9"}}}
	var first, second bytes.Buffer
	require.NoError(t, writeArchive(&first, []byte("program"), images))
	require.NoError(t, writeArchive(&second, []byte("program"), images))
	assert.Equal(t, first.Bytes(), second.Bytes(), "the disk's cache needs the same bytes each time")

	files := readTar(t, &first)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	require.NoError(t, json.Unmarshal(files["manifest.json"], &manifest))
	require.Len(t, manifest, len(images))
	for i, m := range manifest {
		assert.Equal(t, []string{images[i].name}, m.RepoTags)
		assert.Equal(t, fmt.Sprintf("%x.json", sha256.Sum256(files[m.Config])), m.Config)
		require.Len(t, m.Layers, 1)
		var config struct {
			Config struct{ Cmd []string }
			Rootfs struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		require.NoError(t, json.Unmarshal(files[m.Config], &config))
		assert.Equal(t, images[i].cmd, config.Config.Cmd)
		assert.Equal(t, []string{fmt.Sprintf("sha256:%x", sha256.Sum256(files[m.Layers[0]]))}, config.Rootfs.DiffIDs)
	}
	layer := readTar(t, bytes.NewReader(files[manifest[0].Layers[0]]))
	assert.Equal(t, "program", string(layer["bin/busybox"]))
	assert.Contains(t, layer, "bin/sh")
}

func readTar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF { //nolint:errorlint // Next returns it as it is
			return files
		}
		require.NoError(t, err)
		b, err := io.ReadAll(tr)
		require.NoError(t, err)
		files[h.Name] = b
	}
}
