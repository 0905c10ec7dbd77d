// Command udpecho returns datagrams that come to a port of any address, for
// tests in guests, whose busybox can't:
//
//	udpecho PORT
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "udpecho:", serve(os.Args[1:]))
	os.Exit(1)
}

// serve returns when it fails.
func serve(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, the port")
	}
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", ":"+args[0])
	if err != nil {
		return err
	}
	for b := make([]byte, 1<<16); ; {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(b[:n], from); err != nil {
			return err
		}
	}
}
