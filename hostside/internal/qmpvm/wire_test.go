package qmpvm

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
)

func TestReadLine(t *testing.T) {
	in := strings.Repeat("a", 10000) + "\nb\n"
	r := bufio.NewReaderSize(strings.NewReader(in), 16)
	line, err := readLine(r)
	require.NoError(t, err)
	assert.Len(t, line, 10001)
	line, err = readLine(r)
	require.NoError(t, err)
	assert.Equal(t, "b\n", string(line))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, line, is string }{
		{"greeting", qmptest.Greeting, "greeting 7.2.22"},
		{"event", qmptest.EventLine("STOP", nil), "event STOP"},
		{"return", `{"return": {"a": 1}, "id": 18446744073709551615}`, `reply 18446744073709551615 {"a": 1}`},
		{"error", `{"error": {"class": "GenericError", "desc": "no"}, "id": 3}`, "reply 3 no"},
		{"error of nothing", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`, "reply ? JSON parse error"},
		{"foreign id", `{"return": {}, "id": "x"}`, "reply ? {}"},
		{"nothing", `{}`, "decode message: neither greeting, event nor reply"},
		{"not JSON", `{"return": `, "decode message: unexpected end of JSON input"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := decode([]byte(c.line))
			assert.Equal(t, c.is, describe(m, err))
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(qmptest.Greeting))
	f.Add([]byte(qmptest.EventLine("DEVICE_DELETED", map[string]any{"device": "brf0123456789", "path": "/machine/peripheral/x"})))
	f.Add([]byte(`{"return": [{"name": "x"}], "id": 1}`))
	f.Add([]byte(`{"error": {"class": "GenericError", "desc": "no"}, "id": 3}`))
	f.Add([]byte(`{"event": "E", "return": 1, "QMP": null, "data": {"device": 7}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decode(line)
		kinds := 0
		for _, set := range []bool{m.greeting != nil, m.event != nil, m.reply != nil} {
			if set {
				kinds++
			}
		}
		require.Equal(t, err == nil, kinds == 1, "%+v, %v", m, err)
		if m.reply != nil {
			require.True(t, m.reply.err != nil || m.reply.value != nil)
		}
		if m.event != nil {
			eventID(*m.event)
		}
	})
}

func TestEncode(t *testing.T) {
	line, err := encode(qmp.Command{Execute: "device_del", Args: args{"id": "x\n"}}, 5)
	require.NoError(t, err)
	assert.Equal(t, //nolint:testifylint // the bytes matter
		`{"execute":"device_del","arguments":{"id":"x\n"},"id":5}`+"\n", string(line))
	assert.Equal(t, 1, bytes.Count(line, []byte("\n")))
	_, err = encode(qmp.Command{Execute: "x", Args: func() {}}, 1)
	require.ErrorContains(t, err, "encode arguments")
}

// describe prints a decoded message for comparison.
func describe(m message, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case m.greeting != nil:
		return "greeting " + m.greeting.Version.String()
	case m.event != nil:
		return "event " + m.event.Event
	}
	id := "?"
	if m.reply.known {
		id = fmt.Sprint(m.reply.id)
	}
	if m.reply.err != nil {
		return fmt.Sprintf("reply %s %s", id, m.reply.err)
	}
	return fmt.Sprintf("reply %s %s", id, m.reply.value)
}
