// Command podtool runs in the pods of a test's guests: servers that tell which pod
// answers, and clients that tell how a connection fares.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podtool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "echo":
		return serve(args[1], echo)
	case len(args) == 3 && args[0] == "name":
		go serveUDP(args[1], args[2]) //nolint:errcheck // what fails with it fails the other as well, or its client
		return serve(args[1], named(args[2]))
	case len(args) == 3 && args[0] == "flow":
		return flow(args[1], args[2])
	case len(args) == 3 && args[0] == "stream":
		size, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		return stream(args[1], size)
	}
	return fmt.Errorf("usage: podtool echo PORT | name PORT NAME | flow ADDRESS FILE | stream ADDRESS BYTES")
}
