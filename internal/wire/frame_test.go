package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFrameLayout(t *testing.T) {
	f := frame{version: 1, kind: kindHello, nonce: Nonce{0: 0xa0, 15: 0xaf}}
	b := f.encode()
	assert.Equal(t, "f54252465553450a"+"0001"+"02"+"00"+"a00000000000000000000000000000af", hex.EncodeToString(b[:28]))
	assert.Equal(t, "ce99956a", hex.EncodeToString(b[28:]))
	got, err := decodeFrame(b)
	require.NoError(t, err)
	assert.Equal(t, f, got)
}

func TestDecodeFrameRefuses(t *testing.T) {
	good := frame{version: 1, kind: kindAck, nonce: newNonce()}.encode()
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		_, err := decodeFrame(b)
		require.ErrorIs(t, err, errFrame, "byte %d changed", i)
	}
	_, err := decodeFrame(good[:frameSize-1])
	require.ErrorIs(t, err, errFrame)
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(frame{version: 1, kind: kindHello, nonce: newNonce()}.encode())
	f.Add([]byte("\xf5BRFUSE\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := decodeFrame(b)
		if err == nil {
			assert.Equal(t, b[:frameSize], fr.encode())
		}
	})
}

// Whatever comes before it, a frame is found, and nothing behind it is lost.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("\xf5BRF\xf5BRFUSE\n\xf5"))
	f.Add(frame{version: 1, kind: kindAck, nonce: newNonce()}.encode()[:30])
	f.Fuzz(func(t *testing.T, before []byte) {
		want := frame{version: Version, kind: kindReady, nonce: newNonce()}
		in := append(append(bytes.Clone(before), want.encode()...), "behind"...)
		s := scanner{r: bufio.NewReader(bytes.NewReader(in))}
		for {
			got, err := s.next()
			require.NoError(t, err)
			if got == want {
				break
			}
		}
		rest := make([]byte, 6)
		_, err := s.r.Read(rest)
		require.NoError(t, err)
		assert.Equal(t, "behind", string(rest))
	})
}
