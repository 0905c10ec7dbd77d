// Command guestinit is PID 1 of brfuse's test guests, in one static program:
//
//	/init        mounts, loads modules, starts the server, reaps orphans
//	labserve     answers the VM harness over a virtio-serial port
//	podctl       makes and removes pods: a named network namespace and a process in it
//
// The name that it is called by says which. It is for tests and the demo only:
// it runs whatever the harness says, as root.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// self is this program's file in the guest.
const self = "/init"

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch name := filepath.Base(args[0]); name {
	case "init":
		if os.Getpid() != 1 {
			return fmt.Errorf("pid is %d, not 1", os.Getpid())
		}
		return boot()
	case "labserve":
		return serveLab()
	case "podctl":
		return podctl(args[1:])
	case "pod":
		return podMain(args[1:])
	default:
		return fmt.Errorf("no such applet: %s", name)
	}
}
