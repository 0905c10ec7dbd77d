package engines

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path"
)

// image is a container image: a name and what it runs.
type image struct {
	name string
	cmd  []string
}

// applets are the names that busybox has in the images.
var applets = []string{
	"sh", "sleep", "ip", "ping", "ping6", "cat", "ls", "true", "echo", "nc", "httpd", "ifconfig", "id", "hostname", "kill", "ps", "seq", "wc",
}

// writeArchive writes images that all have the same single layer, busybox, in
// the form of `docker save`, which containerd and podman read too (image-spec of
// Docker, version 1.2).
func writeArchive(w io.Writer, busybox []byte, images []image) error {
	layer, err := writeLayer(busybox)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	if err := addFile(out, "layer.tar", layer, 0o644); err != nil {
		return err
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	for _, img := range images {
		config, err := json.Marshal(map[string]any{
			"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
			"config":  map[string]any{"Cmd": img.cmd, "Env": []string{"PATH=/bin"}},
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
			"history": []any{map[string]any{"created": "2026-01-01T00:00:00Z", "comment": img.name}},
		})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%x.json", sha256.Sum256(config))
		if err := addFile(out, name, config, 0o644); err != nil {
			return err
		}
		manifest = append(manifest, entry{name, []string{img.name}, []string{"layer.tar"}})
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := addFile(out, "manifest.json", b, 0o644); err != nil {
		return err
	}
	return out.Close()
}

func writeLayer(busybox []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin/", "etc/", "proc/", "sys/", "dev/", "tmp/", "run/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	if err := addFile(w, "bin/busybox", busybox, 0o755); err != nil {
		return nil, err
	}
	for _, name := range applets {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: path.Join("bin", name), Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := addFile(w, "etc/passwd", []byte("root:x:0:0:root:/:/bin/sh\n"), 0o644); err != nil {
		return nil, err
	}
	err := w.Close()
	return buf.Bytes(), err
}

func addFile(w *tar.Writer, name string, content []byte, mode int64) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
