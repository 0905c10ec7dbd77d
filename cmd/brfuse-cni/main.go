// Command brfuse-cni is the CNI plugin of brfuse. Container runtimes call it as
// the file "brfuse" in their folder of plugins; see package guestside/cni.
package main

import (
	"os"

	"github.com/brfuse/brfuse/guestside/cni"
)

func main() { os.Exit(cni.Main()) }
