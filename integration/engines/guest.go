package engines

import (
	"context"
	"maps"
	"path/filepath"
	"slices"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// crictlPath is where guests have the client of CRI.
const crictlPath = "/sbin/crictl"

// Image returns what guests have beside their disk: img, the modules that the
// engines need, and a client of CRI.
func Image(ctx context.Context, lab *vmlab.Lab, img vmlab.Image) (vmlab.Image, error) {
	crictl, err := lab.GoBuildIn(ctx, "integration/engines", "./crictl")
	if err != nil {
		return img, err
	}
	files := map[string]string{crictlPath: crictl}
	maps.Copy(files, img.Files)
	img.Files = files
	img.Modules = slices.Concat(Modules, img.Modules)
	return img, nil
}

// Config returns cfg for a guest whose root is the engines' disk.
func Config(ctx context.Context, lab *vmlab.Lab, cfg vmlab.Config) (vmlab.Config, error) {
	d, err := Recipe()
	if err != nil {
		return cfg, err
	}
	cfg.Disk, err = lab.BuildDisk(ctx, d)
	cfg.Mem = max(cfg.Mem, 2048)
	return cfg, err
}

// Boot boots a guest with engines and without brfuse.
func Boot(ctx context.Context, lab *vmlab.Lab, dir string) (Guest, error) {
	img, err := Image(ctx, lab, vmlab.Image{})
	if err != nil {
		return Guest{}, err
	}
	initrd, err := lab.Build(ctx, filepath.Join(dir, "initrd"), img)
	if err != nil {
		return Guest{}, err
	}
	cfg, err := Config(ctx, lab, vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd})
	if err != nil {
		return Guest{}, err
	}
	vm, err := lab.Boot(ctx, cfg)
	return Guest{vm}, err
}
