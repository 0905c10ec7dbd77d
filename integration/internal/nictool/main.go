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
	case len(args) == 5 && args[0] == "cycle":
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		rep, err := cycle(args[1], args[2], n)
		if err != nil {
			return err
		}
		return write(args[4], rep)
	case len(args) == 2 && args[0] == "pin":
		return pinXDP(args[1], "")
	case len(args) == 3 && args[0] == "pin":
		return pinXDP(args[1], args[2])
	case len(args) == 2 && args[0] == "look":
		return look(os.Stdout, args[1])
	case len(args) == 4 && args[0] == "release":
		return release(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "scrub":
		return scrub(args[1], args[2], args[3])
	}
	return fmt.Errorf("usage: nictool cycle MAC POD N OUT | pin PATH [LINK] | look LINK | release MAC POD FIFO | scrub MAC FILE OUT")
}

// write puts a result into a file.
func write(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
