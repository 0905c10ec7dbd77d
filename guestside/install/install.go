// Package install puts the CNI plugin and its network configuration where
// container runtimes look for them. It is for nodes on which a container brings
// the agent, from an image that has no shell and no cp.
package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/vnic"
)

// pluginName is the name of the CNI plugin's file, and the "type" of configurations.
const pluginName = "brfuse"

// Config says what goes where.
type Config struct {
	// Binary is the file of brfuse-cni. Required.
	Binary string
	// Dir is the runtimes' folder of CNI plugins. It must be there. Required.
	Dir string
	// Conflist is the file of a CNI network configuration. Default: none is installed.
	Conflist string
	// ConflistDir is the runtimes' folder of configurations. Required with Conflist.
	ConflistDir string
}

const maxConflist = 1 << 20 // bytes

// Run installs. Files that are there are replaced at once: a runtime that looks
// meanwhile finds the old or the new. The configuration comes last, because with
// it a node of Kubernetes is ready. It may be repeated.
func Run(c Config) error {
	if c.Dir == "" || c.Conflist != "" && c.ConflistDir == "" {
		return fmt.Errorf("install: name the folder to install into: %w", vnic.ErrInvalid)
	}
	var conflist []byte
	if c.Conflist != "" {
		b, err := os.ReadFile(c.Conflist)
		if err != nil {
			return fmt.Errorf("install network configuration: %w", err)
		}
		if err := checkConflist(b); err != nil {
			return fmt.Errorf("install network configuration %s: %w", c.Conflist, err)
		}
		conflist = b
	}
	plugin, err := os.Open(c.Binary)
	if err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	defer plugin.Close()
	err = replace(filepath.Join(c.Dir, pluginName), 0o755, func(f *os.File) error {
		_, err := io.Copy(f, plugin)
		return err
	})
	if err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	if conflist == nil {
		return nil
	}
	err = replace(filepath.Join(c.ConflistDir, filepath.Base(c.Conflist)), 0o644, func(f *os.File) error {
		_, err := f.Write(conflist)
		return err
	})
	if err != nil {
		return fmt.Errorf("install network configuration: %w", err)
	}
	return nil
}

// checkConflist checks that it is a list of plugins, brfuse's among them: a node
// with a broken one can't start pods.
func checkConflist(b []byte) error {
	var list struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		Plugins    []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if len(b) > maxConflist {
		return fmt.Errorf("longer than %d bytes: %w", maxConflist, vnic.ErrInvalid)
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("%w: %w", err, vnic.ErrInvalid)
	}
	if list.CNIVersion == "" || list.Name == "" {
		return fmt.Errorf("it needs \"cniVersion\" and \"name\": %w", vnic.ErrInvalid)
	}
	for _, p := range list.Plugins {
		if p.Type == pluginName {
			return nil
		}
	}
	return fmt.Errorf("none of its \"plugins\" has \"type\": %q: %w", pluginName, vnic.ErrInvalid)
}

// replace makes a file under a name of its own and renames it when it is on the disk.
func replace(path string, mode os.FileMode, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".brfuse-*") // runtimes pass over hidden files
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
