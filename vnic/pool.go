package vnic

import (
	"fmt"
	"time"
)

// DefaultPoolIdle is how long a pool is left alone before it shrinks.
const DefaultPoolIdle = 5 * time.Minute

// MaxPool is the most vNICs that a pool may hold.
const MaxPool = 1024

// Pool says how many vNICs of a network are kept plugged in a VM and parked: an
// attach takes one of them, and a detach gives it back, instead of plugging and
// unplugging.
type Pool struct {
	VM      string `json:"vm"`
	Network string `json:"network"`
	// Low is how many are kept parked: with fewer, more are plugged in the background.
	Low int `json:"low"`
	// High is how many may be parked: beyond, a detach unplugs. At least Low.
	High int `json:"high"`
	// Idle is how long after the last attach and detach the pool shrinks to Low.
	// Default: [DefaultPoolIdle].
	Idle time.Duration `json:"idleNanoseconds"`
	// Queues is the number of queue pairs of its vNICs. Default: 1. An attach that
	// wants another number is made without the pool.
	Queues int `json:"queues"`
}

// Complete returns p with its defaults filled in, or the first thing that is
// wrong with it as an [ErrInvalid].
func (p Pool) Complete() (Pool, error) {
	if err := CheckVMName(p.VM); err != nil {
		return p, err
	}
	if err := CheckNetworkName(p.Network); err != nil {
		return p, err
	}
	if p.Idle == 0 {
		p.Idle = DefaultPoolIdle
	}
	if p.Queues == 0 {
		p.Queues = 1
	}
	switch {
	case p.Low < 0 || p.High < p.Low:
		return p, fmt.Errorf("pool of %d to %d vnics: the low mark is from 0 to the high one: %w", p.Low, p.High, ErrInvalid)
	case p.High < 1 || p.High > MaxPool:
		return p, fmt.Errorf("pool of at most %d vnics: not in 1-%d: %w", p.High, MaxPool, ErrInvalid)
	case p.Idle < time.Second:
		return p, fmt.Errorf("pool that is idle after %s: at least 1s: %w", p.Idle, ErrInvalid)
	case p.Queues < 1 || p.Queues > MaxQueues:
		return p, fmt.Errorf("queues %d is not in 1-%d: %w", p.Queues, MaxQueues, ErrInvalid)
	}
	return p, nil
}

// PoolStatus is a pool as it is now.
type PoolStatus struct {
	Pool
	Parked  int // ready to be taken
	Filling int // being plugged, or looked at by an agent that has just come
	InUse   int // taken by attachments
	// Hits and Misses count the attaches that took a parked vNIC, and those that
	// found none, since the daemon was started.
	Hits, Misses uint64
	// LastError is why the pool could not be filled the last time, empty when it could.
	LastError string
}
