package labproto_test

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/internal/labproto"
)

func TestReadSkipsWhatIsNoLine(t *testing.T) {
	for _, tc := range []struct{ name, junk string }{
		{"nothing", ""},
		{"half a line of a dead session", `{"session":"old","id":7,"std`},
		{"binary", "\x00\xff\n\x01"},
		{"longer than allowed", strings.Repeat("x", labproto.MaxLine+10)},
		{"empty lines", "\n\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b bytes.Buffer
			b.WriteString(tc.junk)
			want := labproto.Request{Session: "s", ID: 8, Op: labproto.OpRun, Argv: []string{"true"}, Stdin: []byte("a\nb")}
			require.NoError(t, labproto.Write(&b, want))

			r := bufio.NewReader(&b)
			got, err := labproto.Read[labproto.Request](r)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			_, err = labproto.Read[labproto.Request](r)
			assert.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestWriteRefusesLongLines(t *testing.T) {
	var b bytes.Buffer
	require.ErrorContains(t, labproto.Write(&b, labproto.Reply{Data: make([]byte, labproto.MaxLine)}), "longer than")
	assert.Zero(t, b.Len(), "nothing may be written of a refused line")
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\n{\"session\":\"a\",\"id\":1,\"op\":\"run\"}\n"))
	f.Add([]byte("{\"session\":\"a\",\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 16)
		for range len(data) + 1 {
			if _, err := labproto.Read[labproto.Request](r); err != nil {
				return
			}
		}
		t.Fatal("more objects than bytes")
	})
}
