package macro

import (
	_ "embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// guestRoot is the folder in a guest in which nginx has its files.
const guestRoot = "/srv/brfuse-bench"

// Names of files in that folder.
const (
	configFile = "nginx.conf"
	httpFile   = "1k"
)

//go:embed nginx.conf
var nginxConfig []byte

// programs are Debian's packages by what is used of them.
var programs = map[string]string{
	iperf3:         "iperf3",
	sockperf:       "sockperf",
	redisServer:    "redis-server",
	redisBenchmark: "redis-tools",
	nginx:          "nginx-light",
	wrk:            "wrk",
}

// Missing returns the Debian packages that this machine lacks, sorted.
func Missing() []string {
	var missing []string
	for program, pkg := range programs {
		if _, err := os.Stat(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	slices.Sort(missing)
	return missing
}

// Image returns what a guest needs for servers and clients. It writes files into dir,
// which must be there until the image is built.
func Image(dir string) (vmlab.Image, error) {
	if missing := Missing(); len(missing) > 0 {
		return vmlab.Image{}, fmt.Errorf("prepare an image for load programs: %s not installed: run scripts/deps bench", strings.Join(missing, ", "))
	}
	img := vmlab.Image{Files: map[string]string{}}
	for program := range programs {
		img.Programs = append(img.Programs, program)
	}
	slices.Sort(img.Programs)
	if err := WriteRoot(dir); err != nil {
		return vmlab.Image{}, err
	}
	for _, name := range []string{configFile, httpFile} {
		img.Files[path.Join(guestRoot, name)] = filepath.Join(dir, name)
	}
	// nginx looks up the user that it is to run as.
	for dest, line := range map[string]string{"passwd": "root:x:0:0:root:/:/bin/sh\n", "group": "root:x:0:\n"} {
		file := filepath.Join(dir, dest)
		if err := os.WriteFile(file, []byte(line), 0o644); err != nil {
			return vmlab.Image{}, fmt.Errorf("prepare an image for load programs: %w", err)
		}
		img.Files["/etc/"+dest] = file
	}
	return img, nil
}

// WriteRoot writes what nginx needs into a folder, for [Options.Root].
func WriteRoot(dir string) error {
	files := map[string][]byte{configFile: nginxConfig, httpFile: []byte(strings.Repeat("x", httpSize))}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("write nginx's files: %w", err)
		}
	}
	return nil
}
