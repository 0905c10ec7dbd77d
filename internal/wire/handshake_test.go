package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func of(k kind, n Nonce) []byte { return frame{version: Version, kind: k, nonce: n}.encode() }

// shake runs both sides of a handshake until one fails or both agree. The guest
// opens its port again until it does, as agentd.Run does.
func shake(t *testing.T, s *serial, limit time.Duration) (took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	var guest Nonce
	var gerr error
	var wg sync.WaitGroup
	wg.Go(func() {
		g, err := s.open()
		if err != nil {
			gerr = err
			return
		}
		guest, gerr = guestHandshake(ctx, bufio.NewReader(g), g, slog.New(slog.DiscardHandler))
	})
	c := s.connect()
	host, herr := hostHandshake(ctx, bufio.NewReader(c), c)
	took = time.Since(began)
	wg.Wait()
	require.NoError(t, herr)
	require.NoError(t, gerr)
	assert.Equal(t, host, guest)
	assert.NotZero(t, host)
	return took
}

func TestHandshakeDespiteThePast(t *testing.T) {
	old := newNonce()
	half := of(kindHello, old)[:17]
	for _, tt := range []struct {
		name            string
		toGuest, toHost []byte
		within          time.Duration
	}{
		{"nothing", nil, nil, 0},
		{"text in both directions", []byte("login: root\n"), []byte("[  0.000] Linux\n"), 0},
		{"half a frame", half, half, 0},
		{"half a frame and its magic's start", append(half, magic[:3]...), magic[:7], 0},
		{"an old hello", of(kindHello, old), nil, 0},
		{"an old hello and start", append(of(kindStart, old), of(kindHello, old)...), nil, 0},
		{"old answers", nil, append(of(kindAck, old), of(kindReady, old)...), 0},
		{"an old reset", nil, of(kindReset, Nonce{}), 0},
		{"a zero nonce's start", of(kindStart, Nonce{}), of(kindReady, Nonce{}), 0},
		{"a mux's frames", bytes.Repeat([]byte{0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 100), bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32}, 100), 0},
		{"a wrong checksum", append(of(kindStart, old)[:31], 0), append(of(kindReady, old)[:31], 0), 0},
		{"many bytes", bytes.Repeat(magic[:], 30<<10), bytes.Repeat(magic[:], 30<<10), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSerial()
				s.inject(&s.toGuest, tt.toGuest)
				s.inject(&s.toHost, tt.toHost)
				assert.Equal(t, tt.within, shake(t, s, time.Minute))
			})
		})
	}
}

// An old session's START that was never answered makes the guest start a session
// with a host that is gone; the session ends by the first foreign byte, and the
// next handshake is the new host's.
func TestHandshakeAfterAnOldStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSerial()
		old := newNonce()
		s.inject(&s.toGuest, append(of(kindHello, old), of(kindStart, old)...))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			c := s.connect()
			n, err := hostHandshake(ctx, bufio.NewReader(c), c)
			assert.NotEqual(t, old, n)
			assert.NoError(t, err)
		})
		synctest.Wait() // the host's first HELLO is behind the old bytes
		for _, isOld := range []bool{true, false} {
			g, err := s.open()
			require.NoError(t, err)
			n, err := guestHandshake(ctx, bufio.NewReader(g), g, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			assert.Equal(t, isOld, n == old)
			require.NoError(t, g.Close())
		}
		wg.Wait()
	})
}

func TestHandshakeAgentDiesBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSerial()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		var host Nonce
		var wg sync.WaitGroup
		wg.Go(func() {
			c := s.connect()
			var err error
			host, err = hostHandshake(ctx, bufio.NewReader(c), c)
			assert.NoError(t, err)
		})
		synctest.Wait() // HELLO is on its way
		first, err := s.open()
		require.NoError(t, err)
		sc := scanner{r: bufio.NewReader(first)}
		f, err := sc.next()
		require.NoError(t, err)
		require.NoError(t, send(first, kindAck, f.nonce))
		synctest.Wait() // START is on its way
		require.NoError(t, first.Close())

		second, err := s.open() // says RESET, so nobody has to time out
		require.NoError(t, err)
		n, err := guestHandshake(ctx, bufio.NewReader(second), second, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		wg.Wait()
		assert.Equal(t, host, n)
		assert.NotEqual(t, f.nonce, n, "the dead agent's nonce is used")
		assert.Zero(t, time.Since(began))
	})
}

func TestHandshakeLateAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSerial()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var host Nonce
		var wg sync.WaitGroup
		wg.Go(func() {
			c := s.connect()
			var err error
			host, err = hostHandshake(ctx, bufio.NewReader(c), c)
			assert.NoError(t, err)
		})
		<-time.After(10 * time.Second)
		g, err := s.open()
		require.NoError(t, err)
		n, err := guestHandshake(ctx, bufio.NewReader(g), g, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		wg.Wait()
		assert.Equal(t, host, n)
	})
}

func TestHandshakeVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSerial()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := s.connect()
		g, err := s.open()
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { // an agent of version 2
			sc := scanner{r: bufio.NewReader(g)}
			f, err := sc.next()
			if assert.NoError(t, err) {
				_, err = g.Write(frame{version: 2, kind: kindAck, nonce: f.nonce}.encode())
			}
			assert.NoError(t, err)
		})
		_, err = hostHandshake(ctx, bufio.NewReader(c), c)
		wg.Wait()
		var v *VersionError
		require.ErrorAs(t, err, &v)
		assert.Equal(t, VersionError{Host: 1, Guest: 2}, *v)
		require.EqualError(t, err, "brfused speaks version 1 of the channel's protocol and brfuse-agent version 2: install the same release of both")
		assert.True(t, c.closed)
	})
}

func TestHandshakeGuestAnswersOtherVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSerial()
		ctx, cancel := context.WithCancel(t.Context())
		c := s.connect()
		g, err := s.open()
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := guestHandshake(ctx, bufio.NewReader(g), g, slog.New(slog.NewTextHandler(&log, nil)))
			assert.ErrorIs(t, err, context.Canceled)
		})
		n := newNonce()
		for range 2 {
			_, err = c.Write(frame{version: 7, kind: kindHello, nonce: n}.encode())
			require.NoError(t, err)
		}
		_, err = c.Write(frame{version: 7, kind: kindStart, nonce: n}.encode())
		require.NoError(t, err)
		sc := scanner{r: bufio.NewReader(c)}
		for _, want := range []kind{kindReset, kindAck, kindAck} {
			f, err := sc.next()
			require.NoError(t, err)
			assert.Equal(t, want, f.kind)
			assert.Equal(t, uint16(Version), f.version)
		}
		synctest.Wait()
		assert.Empty(t, s.toHost, "the guest started a session of another version")
		cancel()
		wg.Wait()
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("\n")), log.String())
		assert.Contains(t, log.String(), "brfused speaks version 7")
	})
}

func TestHandshakeHostileGuest(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(i int, hello frame) []byte
		want error
	}{
		{"garbage", func(int, frame) []byte { return bytes.Repeat([]byte{0xf5}, 64<<10) }, errGarbage},
		{"resets", func(int, frame) []byte { return of(kindReset, Nonce{}) }, errRestarts},
		{"silence", func(int, frame) []byte { return nil }, context.DeadlineExceeded},
		{"acks for ever", func(_ int, h frame) []byte { return of(kindAck, h.nonce) }, context.DeadlineExceeded},
		{"ready without start", func(_ int, h frame) []byte { return of(kindReady, h.nonce) }, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSerial()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c := s.connect()
				g, err := s.open()
				require.NoError(t, err)
				var wg sync.WaitGroup
				wg.Go(func() {
					sc := scanner{r: bufio.NewReader(g)}
					f, err := sc.next()
					for i := 0; err == nil && ctx.Err() == nil; i++ {
						if _, err = g.Write(tt.send(i, f)); err == nil && errors.Is(tt.want, context.DeadlineExceeded) {
							f, err = sc.next()
						}
						<-time.After(time.Millisecond)
						if s.hostGone() {
							return
						}
					}
				})
				_, err = hostHandshake(ctx, bufio.NewReader(c), c)
				require.ErrorIs(t, err, tt.want)
				_ = g.Close()
				wg.Wait()
			})
		})
	}
}

func (s *serial) hostGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients) == 0
}

// blocked is a connection that takes nothing and gives nothing.
type blocked struct {
	once   sync.Once
	closed chan struct{}
}

func (b *blocked) Read([]byte) (int, error) {
	<-b.closed
	return 0, io.ErrClosedPipe
}
func (b *blocked) Write([]byte) (int, error) { return b.Read(nil) }
func (b *blocked) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func TestHandshakeBlockedConnection(t *testing.T) {
	for _, role := range []string{"host", "guest"} {
		t.Run(role, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				open := map[string]func(context.Context, io.ReadWriteCloser, Config) (*Session, error){"host": Host, "guest": Guest}[role]
				_, err := open(t.Context(), &blocked{closed: make(chan struct{})}, Config{})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.EqualError(t, err, "handshake: no handshake within 30s: context deadline exceeded")
				assert.Equal(t, 30*time.Second, time.Since(began))
			})
		})
	}
}
