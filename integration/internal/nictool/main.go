// Command nictool runs in a test's guest and does there what is done to a vNIC: it
// moves one to a pod and back by brfuse's guest half, next to the least that does so,
// and lets a test dirty one meanwhile.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nictool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 4 && args[0] == "cycle":
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		rep, err := cycle(args[1], args[2], n)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(rep)
	case len(args) == 2 && args[0] == "pin":
		return pinXDP(args[1], "")
	case len(args) == 3 && args[0] == "pin":
		return pinXDP(args[1], args[2])
	case len(args) == 3 && args[0] == "scrub":
		return scrub(args[1], args[2])
	}
	return fmt.Errorf("usage: nictool cycle MAC POD N | pin PATH [LINK] | scrub MAC FILE")
}
