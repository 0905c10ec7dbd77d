package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/guestside/install"
)

// installFlags adds the flags with which the agent installs the CNI plugin that
// lies beside it, and does nothing else.
func installFlags(flags *flag.FlagSet) *install.Config {
	c := &install.Config{}
	flags.StringVar(&c.Dir, "install", "", "install the CNI plugin into this folder, such as /opt/cni/bin, and exit")
	flags.StringVar(&c.Conflist, "install-conflist", "", "with -install: install this CNI network configuration too")
	flags.StringVar(&c.ConflistDir, "conflist-dir", "/etc/cni/net.d", "with -install: folder of the configuration")
	return c
}

func runInstall(c install.Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find brfuse-cni: %w", err)
	}
	c.Binary = filepath.Join(filepath.Dir(self), "brfuse-cni")
	return install.Run(c)
}
