package netnsx

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs fn in n, on a thread that does nothing else meanwhile, and returns
// fn's error. Goroutines that fn starts are not in n; sockets that it opens
// are, and stay so. fn must not panic. When it ends its goroutine, as the
// FailNow of a test does, Do ends the caller's.
func (n *NS) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		// No deferred unlock: when the thread can't be brought back, the
		// goroutine ends while locked, and the runtime ends the thread.
		runtime.LockOSThread()
		fnErr, homeErr := n.visit(fn)
		if homeErr == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(fnErr, homeErr)
	}()
	err, ok := <-done
	if !ok {
		runtime.Goexit()
	}
	return err
}

// visit runs fn in n on the calling, locked thread. Its second error is not
// nil when the thread is not known to be where it was.
func (n *NS) visit(fn func() error) (fnErr, homeErr error) {
	home, err := Current()
	if err != nil {
		return err, nil
	}
	if err := enter(n.fd); err != nil {
		return errors.Join(err, home.Close()), nil
	}
	fnErr = fn()
	return fnErr, errors.Join(enter(home.fd), home.Close())
}

func enter(fd int) error {
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// New makes a network namespace that exists as long as something holds it.
func New() (*NS, error) {
	type result struct {
		ns  *NS
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // see Do
		ns, err, homeErr := create()
		if homeErr == nil {
			runtime.UnlockOSThread()
		} else if ns != nil {
			homeErr = errors.Join(homeErr, ns.Close())
			ns = nil
		}
		done <- result{ns, errors.Join(err, homeErr)}
	}()
	r := <-done
	return r.ns, r.err
}

// create makes a namespace on the calling, locked thread and leaves it again.
// The last error is not nil when the thread is not known to be where it was.
func create() (ns *NS, err, homeErr error) {
	home, err := Current()
	if err != nil {
		return nil, err, nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace: %w", err), home.Close()), nil
	}
	ns, err = Current()
	return ns, err, errors.Join(enter(home.fd), home.Close())
}
