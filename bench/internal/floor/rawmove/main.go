// Command rawmove runs in the guest of the bench and does the least that gives
// a hotplugged NIC to a pod: it awaits the NIC's netlink event, moves, renames
// and sets it up by one message, and gives it its addresses by another. It is
// the floor that brfuse is compared with, so it checks nothing.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/bench/internal/floor/order"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rawmove:", err)
		os.Exit(1)
	}
}

// run carries out orders until the port is unplugged.
func run() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	for in := bufio.NewReader(port); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		var o order.Order
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		rep, err := carryOut(port, o)
		if err != nil {
			rep.Error = err.Error()
		}
		if err := send(port, rep); err != nil {
			return err
		}
	}
}

// openPort opens the bench's port. Its host is there already.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == order.Port {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio-serial port named %s", order.Port)
}

func send(port *os.File, rep order.Report) error {
	b, err := json.Marshal(rep)
	if err == nil {
		_, err = port.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	return nil
}

// carryOut opens all that the move will need, says so, and moves the NIC when
// it comes.
func carryOut(port *os.File, o order.Order) (rep order.Report, err error) {
	pod, err := netnsx.Open(o.Netns)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	var inside *rtnl.Conn
	if err := pod.Do(func() (err error) { inside, err = rtnl.Dial(); return err }); err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, inside.Close()) }()
	home, err := rtnl.Dial()
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	mon, err := rtnl.NewMonitor(home)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, mon.Close()) }()
	if _, err := mon.Next(); err != nil { // the links there are
		return rep, err
	}
	if err := send(port, order.Report{Armed: true}); err != nil {
		return rep, err
	}
	index, err := await(mon, o.MAC)
	if err != nil {
		return rep, err
	}
	return move(home, inside, index, pod.FD(), o)
}

// await returns the index of the NIC once it is there.
func await(mon *rtnl.Monitor, mac vnic.MAC) (int, error) {
	for {
		u, err := mon.Next()
		if err != nil {
			return 0, err
		}
		for _, c := range u.Changes {
			if c.Link.MAC == mac && !c.Gone {
				return c.Link.Index, nil
			}
		}
	}
}

// move relies on that the kernel keeps a NIC's index where it is free.
func move(home, inside *rtnl.Conn, index, pod int, o order.Order) (rep order.Report, err error) {
	start := time.Now()
	err = home.Do(rtnl.SetLink(index, rtnl.Change{Netns: pod, Name: o.Interface, Flags: unix.IFF_UP, Mask: unix.IFF_UP}))
	if err != nil {
		return rep, err
	}
	moved := time.Now()
	addrs := make([]rtnl.Request, len(o.Addresses))
	for i, p := range o.Addresses {
		addrs[i] = rtnl.SetAddr(index, p)
	}
	err = inside.Do(addrs...)
	return order.Report{Move: moved.Sub(start), Address: time.Since(moved)}, err
}
