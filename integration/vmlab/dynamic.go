package vmlab

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// libraryDirs are where the loader looks, in its order.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// sharedObjects returns the loader and all libraries that a program needs, by
// the paths under which the loader finds them; none for a static program.
func sharedObjects(program string) ([]string, error) {
	var found []string
	seen := map[string]bool{}
	queue := []string{program}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		needs, err := imports(file)
		if err != nil {
			return nil, fmt.Errorf("find libraries of %s: %w", file, err)
		}
		for _, need := range needs {
			if seen[need] {
				continue
			}
			seen[need] = true
			where, err := findLibrary(need)
			if err != nil {
				return nil, fmt.Errorf("find libraries of %s: %w", file, err)
			}
			found = append(found, where)
			queue = append(queue, where)
		}
	}
	return found, nil
}

// imports returns the libraries that a file names, and its loader.
func imports(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	needs, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			needs = append(needs, strings.TrimRight(string(b), "\x00"))
		}
	}
	return needs, nil
}

func findLibrary(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("library %s is in none of %s: %w", name, strings.Join(libraryDirs, ", "), os.ErrNotExist)
}
