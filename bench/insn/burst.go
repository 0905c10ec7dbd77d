package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// A guest that receives datagrams at a given rate costs between one and three times
// the same for each, as they come one by one or many at once: that depends on how
// fast the machine is just now, and nothing that was tried brought the spread under
// 20 %. So they come in bursts while the guest's CPU stands still, and it finds
// them all there when it goes on, which is what a busy receiver finds too.
const (
	burstLen = 200 // less than the 256 that a NIC's ring holds
	bursts   = 20
)

// burstLimit bounds a burst: many times what it takes.
const burstLimit = 30 * time.Second

// What a datagram begins with, as peer.c has it.
const (
	takeIt   = 0
	sendBack = 1
)

// burster sends bursts into a guest.
type burster struct {
	conn net.Conn
	vm   *vmlab.VM
	msg  []byte
	back []byte
}

// receive has the guest receive bursts of datagrams of that size, and returns what
// each datagram has cost. One burst is to warm up.
func (b *counted) receive(ctx context.Context, size int) (m map[string]float64, err error) {
	s := &burster{vm: b.setup.Server.Guest(), msg: make([]byte, size), back: make([]byte, size)}
	err = b.setup.Client.Host().NS().Do(func() (err error) {
		s.conn, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: b.setup.Addr.AsSlice(), Port: port})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.conn.Close()) }()
	if err := s.burst(ctx); err != nil {
		return nil, err
	}
	before, began := b.read(), time.Now()
	for range bursts {
		if err := s.burst(ctx); err != nil {
			return nil, err
		}
	}
	n := float64(b.read() - before)
	return map[string]float64{
		result.Instructions: n / (bursts * burstLen), total: n, elapsed: time.Since(began).Seconds(),
	}, nil
}

// burst sends a burst while the guest stands still, and returns when it has come
// to the last of them.
func (s *burster) burst(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, burstLimit)
	defer cancel()
	if _, err := s.vm.Monitor().Do(ctx, "stop", nil); err != nil {
		return err
	}
	sent := s.send()
	if _, err := s.vm.Monitor().Do(ctx, "cont", nil); err != nil || sent != nil {
		return errors.Join(err, sent)
	}
	deadline, _ := ctx.Deadline()
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	if _, err := s.conn.Read(s.back); err != nil {
		return fmt.Errorf("await the answer to a burst of %d datagrams: %w", burstLen, err)
	}
	return nil
}

func (s *burster) send() error {
	for i := range burstLen {
		s.msg[0] = takeIt
		if i == burstLen-1 {
			s.msg[0] = sendBack
		}
		if _, err := s.conn.Write(s.msg); err != nil {
			return fmt.Errorf("send a burst: %w", err)
		}
	}
	return nil
}
