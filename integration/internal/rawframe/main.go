// Command rawframe sends and receives Ethernet frames as they are. It runs in
// guests, where tests use it to send what no honest program would.
//
//	rawframe send INTERFACE HEX...    sends each frame
//	rawframe recv INTERFACE           prints each received frame as hex, the first line is "ready"
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rawframe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%d arguments are too few", len(args))
	}
	ifi, err := net.InterfaceByName(args[1])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // until it is bound it hears of no link
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	addr := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("bind to %s: %w", args[1], err)
	}
	switch args[0] {
	case "send":
		return send(fd, addr, args[2:])
	case "recv":
		return receive(fd)
	}
	return fmt.Errorf("unknown verb %q", args[0])
}

func send(fd int, addr unix.Sockaddr, frames []string) error {
	for _, s := range frames {
		raw, err := hex.DecodeString(s)
		if err != nil {
			return err
		}
		if err := unix.Sendto(fd, raw, 0, addr); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

func receive(fd int) error {
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(out, "ready")
	for buf := make([]byte, 1<<16); ; {
		if err := out.Flush(); err != nil {
			return err
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		fmt.Fprintln(out, hex.EncodeToString(buf[:n]))
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
