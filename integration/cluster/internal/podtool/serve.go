package main

import (
	"fmt"
	"io"
	"net"
)

// serve has handle answer each connection to a TCP port.
func serve(port string, handle func(net.Conn)) error {
	l, err := net.Listen("tcp", ":"+port) //nolint:noctx // until it is killed
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(c)
	}
}

// echo sends back what comes.
func echo(c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

// named says which pod answers, and to whom.
func named(name string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		_, _ = fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
	}
}

// serveUDP answers datagrams as named does connections.
func serveUDP(port, name string) error {
	c, err := net.ListenPacket("udp", ":"+port) //nolint:noctx // until it is killed
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from); err != nil {
			return err
		}
	}
}
