package guestlink

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// maxOrders is how many orders of one agent are carried out at the same time;
	// more wait for their turn. It is beside maxReports.
	maxOrders = 64
	// An agent may give orderBurst orders in a row, and then one every orderEvery:
	// more than engines start containers, and not enough to keep a daemon from
	// serving other VMs.
	orderBurst = 1024
	orderEvery = 10 * time.Millisecond
)

// turns bound the orders of one VM, whatever sessions they come in: a guest gains
// nothing by ending one.
type turns struct {
	slots   chan struct{} // one token an order under way
	running sync.WaitGroup

	mu     sync.Mutex // guards what is below
	tokens int        // less than 0: as many orders wait for theirs
	filled time.Time
}

func newTurns() *turns {
	return &turns{slots: make(chan struct{}, maxOrders), tokens: orderBurst, filled: time.Now()}
}

// take waits until an order may be carried out. Call end after it.
func (t *turns) take(ctx context.Context) error {
	if wait := t.reserve(); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			t.giveBack()
			return fmt.Errorf("wait for its turn, after %d orders in a row: %w", orderBurst, ctx.Err())
		}
	}
	select {
	case t.slots <- struct{}{}:
		t.running.Add(1)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for one of %d orders to end: %w", maxOrders, ctx.Err())
	}
}

func (t *turns) end() {
	<-t.slots
	t.running.Done()
}

// wait waits for the orders under way. None may be taken meanwhile.
func (t *turns) wait() { t.running.Wait() }

// reserve takes a token, and returns how long it takes until it is there.
func (t *turns) reserve() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := int(time.Since(t.filled) / orderEvery); n > 0 {
		t.tokens = min(orderBurst, t.tokens+n)
		t.filled = t.filled.Add(time.Duration(n) * orderEvery)
	}
	t.tokens--
	return time.Duration(max(0, -t.tokens)) * orderEvery
}

func (t *turns) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens++
}
