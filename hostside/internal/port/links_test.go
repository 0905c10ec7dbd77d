package port

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A daemon that may not change namespaces has to hear of it when it starts, not to
// wait for ever at its first tap.
func TestStartFailsOutsideOfTheNamespace(t *testing.T) {
	var l Links
	err := l.start(func(func() error) error { return unix.EPERM })
	require.ErrorIs(t, err, unix.EPERM)
}

func TestStartedLinksWork(t *testing.T) {
	var l Links
	require.NoError(t, l.start(func(work func() error) error { return work() }))
	ran := false
	require.NoError(t, l.Inside(t.Context(), func() error { ran = true; return nil }))
	assert.True(t, ran)
	close(l.stop)
	require.NoError(t, <-l.done)
}
