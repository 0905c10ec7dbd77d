package window

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/internal/netnsx"
)

// newListener returns one that notes in heard what it calls.
func newListener(t *testing.T) (l *Listener, heard chan string) {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs root")
	}
	here, err := netnsx.Current()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, here.Close()) })
	heard = make(chan string, 4)
	l, err = Listen(t.Context(), here, netip.MustParseAddr("127.0.0.1"), func() func() {
		heard <- Begin
		return func() { heard <- End }
	})
	require.NoError(t, err)
	return l, heard
}

func dial(t *testing.T, l *Listener) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn, bufio.NewReader(conn)
}

func TestIntegrationWords(t *testing.T) {
	l, heard := newListener(t)
	for range 2 { // one guest after another
		conn, in := dial(t, l)
		for _, word := range []string{Begin, End} {
			_, err := conn.Write([]byte(word + "\n"))
			require.NoError(t, err)
			_, err = in.ReadString('\n')
			require.NoError(t, err)
			select {
			case got := <-heard:
				assert.Equal(t, word, got)
			default:
				t.Fatal("the answer came before ", word, " was heard")
			}
		}
		require.NoError(t, conn.Close())
	}
	require.NoError(t, l.Close())
}

func TestIntegrationSilence(t *testing.T) {
	cases := []struct{ name, says, want string }{
		{"nothing", "", ""},
		{"something else", "hello\n", `a guest said "hello\n", not "begin"`},
		{"a word twice", "begin\nbegin\n", `a guest began and then said "begin\n", not "end"`},
		{"half", "begin\n", "a guest began and didn't end: EOF"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, _ := newListener(t)
			conn, in := dial(t, l)
			_, err := conn.Write([]byte(c.says))
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			for err == nil { // until it hangs up, so that it has heard all
				_, err = in.ReadString('\n')
			}
			err = l.Close()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			assert.EqualError(t, err, c.want)
		})
	}
}

// TestIntegrationClose has a guest that began and says no more.
func TestIntegrationClose(t *testing.T) {
	l, heard := newListener(t)
	conn, in := dial(t, l)
	_, err := conn.Write([]byte(Begin + "\n"))
	require.NoError(t, err)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	require.ErrorContains(t, l.Close(), "a guest began and didn't end")
	assert.Len(t, heard, 1)
}
