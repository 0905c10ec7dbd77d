// Command rawmove runs in the guest of the bench and does the least that gives
// a NIC to a pod: it moves, renames and sets it up by one message, and gives it
// its addresses and routes by another. A NIC that is hotplugged it awaits by its
// netlink event; one that waits it has looked up beforehand, and moves back by
// one message. It is the floor that brfuse is compared with, so it checks nothing.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/brfuse/brfuse/bench/internal/floor/order"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rawmove:", err)
		os.Exit(1)
	}
}

// run carries out orders until the port is unplugged.
func run() (err error) {
	port, err := openPort()
	if err != nil {
		return err
	}
	w := &worker{port: port}
	defer func() { err = errors.Join(err, w.release(), port.Close()) }()
	for in := bufio.NewReader(port); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		var o order.Order
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		rep, err := w.carryOut(o)
		if err != nil {
			rep.Error = err.Error()
		}
		if err := w.send(rep); err != nil {
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

// worker carries out orders. It has a NIC from Hold to Home.
type worker struct {
	port *os.File
	held *nic
}

// carryOut returns the last report of an order.
func (w *worker) carryOut(o order.Order) (order.Report, error) {
	switch o.Verb {
	case order.Await:
		return w.await(o)
	case order.Hold:
		return w.hold(o)
	case order.Move, order.Home:
		if w.held == nil {
			return order.Report{}, errors.New("no NIC is held")
		}
	}
	switch o.Verb {
	case order.Move:
		return w.held.enter()
	case order.Home:
		return w.held.leave()
	}
	return order.Report{}, fmt.Errorf("unknown order %q", o.Verb)
}

// await moves the NIC when it comes.
func (w *worker) await(o order.Order) (rep order.Report, err error) {
	n, err := newNIC(o)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.await(func() error { return w.send(order.Report{Armed: true}) }); err != nil {
		return rep, err
	}
	return n.enter()
}

// hold looks the NIC up, or awaits it, in place of the one before.
func (w *worker) hold(o order.Order) (rep order.Report, err error) {
	if err := w.release(); err != nil {
		return rep, err
	}
	n, err := newNIC(o)
	if err != nil {
		return rep, err
	}
	if err := n.await(func() error { return nil }); err != nil {
		return rep, errors.Join(err, n.close())
	}
	w.held = n
	return order.Report{Armed: true}, nil
}

func (w *worker) release() error {
	if w.held == nil {
		return nil
	}
	err := w.held.close()
	w.held = nil
	return err
}

func (w *worker) send(rep order.Report) error {
	b, err := json.Marshal(rep)
	if err == nil {
		_, err = w.port.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	return nil
}
