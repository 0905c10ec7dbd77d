package guard_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationServicesUnderLoad changes services while connections come: none of them
// finds no target.
func TestIntegrationServicesUnderLoad(t *testing.T) {
	c := newCluster(t)
	sets := [][]string{{"a", "b", "remote"}, {"b"}, {"remote", "a"}, {"remote"}, {"a", "b"}}
	change := func(i int) {
		c.set(t, service(vnic.TCP, 8080, sets[i%len(sets)]...), service(vnic.TCP, 8081, "a"))
	}
	change(0)
	asked, failed, err := c.underLoad(t, 50, change)
	require.NoError(t, err)
	assert.Zero(t, failed)
	assert.GreaterOrEqual(t, asked, int64(100), "connections to each, within the time")
}

// TestIntegrationTablesAnewUnderLoad makes the tables anew while connections come. Of
// them one may find no target: the kernel has it pass the new chain before the rules
// of that are in force, and the old one after that. Hardly any does.
func TestIntegrationTablesAnewUnderLoad(t *testing.T) {
	c := newCluster(t)
	c.set(t, service(vnic.TCP, 8080, "a", "b", "remote"), service(vnic.TCP, 8081, "a"))
	asked, failed, err := c.underLoad(t, 20, func(int) {
		require.NoError(t, c.g.SetNetwork(t.Context(), testNetwork()))
	})
	t.Logf("%d of %d failed: %v", failed, asked, err)
	assert.GreaterOrEqual(t, asked, int64(100), "connections to each, within the time")
	assert.LessOrEqual(t, failed, max(1, asked/100))
}

// underLoad connects to both services, again and again, while it changes them at least
// so many times, and until there were a hundred connections. It returns how many there
// were, how many of them failed, and the last error of these.
func (c *cluster) underLoad(t *testing.T, times int, change func(i int)) (asked, failed int64, last error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var sofar atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.world.Do(func() error {
			for ctx.Err() == nil {
				if err := errors.Join(once(ctx, "192.0.2.1:8080"), once(ctx, "192.0.2.1:8081")); err != nil && ctx.Err() == nil {
					failed, last = failed+1, err
				}
				sofar.Add(1)
			}
			return nil
		})
	}()
	for i := 0; i < times || sofar.Load() < 100 && ctx.Err() == nil; i++ {
		change(i)
	}
	stop()
	<-ended
	return sofar.Load(), failed, last
}

// once asks from the calling thread's namespace and returns what goes wrong, within half
// of the time after which TCP sends again what was lost (RFC 6298).
func once(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	err = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if err == nil {
		_, err = io.ReadAll(conn)
	}
	return errors.Join(err, conn.Close())
}
