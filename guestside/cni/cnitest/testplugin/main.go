// Command testplugin is a CNI plugin for tests. By the name of its file it is an
// IPAM plugin that gives the address which "ipam" says and keeps its leases as
// files in a folder, or one for the end of a chain that passes on what it gets.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// conf is what both kinds of plugin read.
type conf struct {
	types.PluginConf
	IPAM struct {
		Dir     string         `json:"dir"`
		Address types.IPNet    `json:"address"`
		Gateway net.IP         `json:"gateway"`
		Routes  []*types.Route `json:"routes"`
	} `json:"ipam"`
}

func load(b []byte) (conf, error) {
	var c conf
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("decode configuration: %w", err)
	}
	return c, nil
}

func main() {
	funcs := ipam()
	if filepath.Base(os.Args[0]) == "testtune" {
		funcs = chained()
	}
	skel.PluginMainFuncs(funcs, version.All, "CNI plugin for tests of brfuse")
}

func lease(c conf, a *skel.CmdArgs) string {
	return filepath.Join(c.IPAM.Dir, a.ContainerID+"-"+a.IfName)
}

func ipam() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add: func(a *skel.CmdArgs) error {
			c, err := load(a.StdinData)
			if err != nil {
				return err
			}
			if err := os.WriteFile(lease(c, a), nil, 0o600); err != nil {
				return err
			}
			r := &types100.Result{
				CNIVersion: types100.ImplementedSpecVersion, Routes: c.IPAM.Routes,
				IPs: []*types100.IPConfig{{Address: net.IPNet(c.IPAM.Address), Gateway: c.IPAM.Gateway}},
			}
			return types.PrintResult(r, c.CNIVersion)
		},
		Del: func(a *skel.CmdArgs) error {
			c, err := load(a.StdinData)
			if err != nil {
				return err
			}
			if err := os.Remove(lease(c, a)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
		Check: func(a *skel.CmdArgs) error {
			c, err := load(a.StdinData)
			if err != nil {
				return err
			}
			_, err = os.Stat(lease(c, a))
			return err
		},
		GC:     collect,
		Status: status,
	}
}

// collect removes leases that are not valid.
func collect(a *skel.CmdArgs) error {
	c, err := load(a.StdinData)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(c.IPAM.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		valid := slices.ContainsFunc(c.ValidAttachments, func(v types.GCAttachment) bool {
			return e.Name() == v.ContainerID+"-"+v.IfName
		})
		if !valid {
			err = errors.Join(err, os.Remove(filepath.Join(c.IPAM.Dir, e.Name())))
		}
	}
	return err
}

// status fails while there is a file "down".
func status(a *skel.CmdArgs) error {
	c, err := load(a.StdinData)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.IPAM.Dir, "down")); err == nil {
		return types.NewError(types.ErrPluginNotAvailable, "the test says no", "")
	}
	return nil
}

func chained() skel.CNIFuncs {
	pass := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{
		Add: func(a *skel.CmdArgs) error {
			c, err := load(a.StdinData)
			if err != nil {
				return err
			}
			if err := version.ParsePrevResult(&c.PluginConf); err != nil {
				return err
			}
			if c.PrevResult == nil {
				return errors.New("no prevResult")
			}
			return types.PrintResult(c.PrevResult, c.CNIVersion)
		},
		Del: pass, Check: pass, GC: pass, Status: pass,
	}
}
