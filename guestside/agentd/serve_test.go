package agentd

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/vnic"
)

// porch is a front door that stays open for a while.
type porch struct {
	open time.Duration // 0: until ctx ends
	back chan vnic.ID
}

func (p *porch) Serve(ctx context.Context) error {
	if p.open == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(p.open):
		return errors.New("the door is stuck")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *porch) HandedBack(id vnic.ID, _ vnic.MAC) { p.back <- id }

func TestFrontDoorIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var at []time.Duration
		last := &porch{back: make(chan vnic.ID, 1)}
		door := Door{Name: "test", Open: func(*hostclient.Client, *guestside.Agent) (FrontDoor, error) {
			at = append(at, time.Since(began))
			switch len(at) {
			case 1, 2, 3:
				return nil, errors.New("read-only file system")
			case 4:
				return &porch{open: time.Hour}, nil
			}
			return last, nil
		}}
		var ls listeners
		done := make(chan struct{})
		go func() {
			defer close(done)
			keepOpen(ctx, door, nil, nil, &ls, slog.New(slog.DiscardHandler))
		}()
		<-time.After(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 7*time.Second + time.Hour + time.Second}, at)
		assert.Len(t, ls.all, 1)
		ls.handedBack("0123456789", vnic.MAC{})
		assert.Equal(t, vnic.ID("0123456789"), <-last.back)
		cancel()
		<-done
		assert.Empty(t, ls.all)
	})
}
