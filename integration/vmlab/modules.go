package vmlab

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// moduleSet is the modules of a kernel package. The package has no
// modules.dep, which depmod makes when it is installed, so what a module needs
// is read from the module itself.
type moduleSet struct {
	dir     string
	files   map[string]string // name -> path below dir
	builtin map[string]bool
	aliases map[string]string // alias -> name; nil until it is needed
}

func openModules(dir string) (*moduleSet, error) {
	m := &moduleSet{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	err := fs.WalkDir(os.DirFS(dir), "kernel", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path.Ext(p) == ".ko" {
			m.files[moduleName(p)] = p
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for p := range strings.FieldsSeq(string(b)) {
		m.builtin[moduleName(p)] = true
	}
	return m, nil
}

// moduleName is the kernel's name of the module in file p.
func moduleName(p string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(p), ".ko"), "-", "_")
}

// resolve returns the paths, below dir, of the named modules and of all that
// they need, each before those that need it.
func (m *moduleSet) resolve(names []string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] || m.builtin[name] {
			return nil
		}
		seen[name] = true
		file, ok := m.files[name]
		if !ok {
			return fmt.Errorf("kernel has no module %s (compressed ones are not supported)", name)
		}
		info, err := readModinfo(filepath.Join(m.dir, file))
		if err != nil {
			return err
		}
		for _, need := range append(info.depends, m.soft(info)...) {
			if err := visit(need); err != nil {
				return fmt.Errorf("needed by %s: %w", name, err)
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// soft returns the modules that serve info's soft dependencies, which may be
// aliases, such as crc32c, and may be missing.
func (m *moduleSet) soft(info modinfo) []string {
	var found []string
	for _, name := range info.before {
		name = moduleName(name)
		if _, ok := m.files[name]; !ok {
			name = m.byAlias(name)
		}
		if name != "" {
			found = append(found, name)
		}
	}
	return found
}

func (m *moduleSet) byAlias(alias string) string {
	if m.aliases == nil {
		m.aliases = map[string]string{}
		for name, file := range m.files {
			info, err := readModinfo(filepath.Join(m.dir, file))
			if err != nil {
				continue // soft dependencies may be missing
			}
			for _, a := range info.aliases {
				// The generic implementation of an algorithm works on every CPU.
				if m.aliases[a] == "" || strings.HasSuffix(name, "_generic") {
					m.aliases[a] = name
				}
			}
		}
	}
	return m.aliases[alias]
}

// modinfo is what a module says about itself.
type modinfo struct {
	depends []string
	before  []string // soft dependencies to load first
	aliases []string
}

func readModinfo(file string) (modinfo, error) {
	var info modinfo
	f, err := elf.Open(file)
	if err != nil {
		return info, fmt.Errorf("open module: %w", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return info, fmt.Errorf("module %s: %w", file, errors.New("no .modinfo section"))
	}
	data, err := section.Data()
	if err != nil {
		return info, fmt.Errorf("read module %s: %w", file, err)
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			info.depends = append(info.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			if names, ok := strings.CutPrefix(value, "pre: "); ok {
				names, _, _ = strings.Cut(names, "post:")
				info.before = append(info.before, strings.Fields(names)...)
			}
		case "alias":
			info.aliases = append(info.aliases, moduleName(value))
		}
	}
	return info, nil
}
