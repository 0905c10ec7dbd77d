package netpath

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecode(t *testing.T) {
	p := sample(2).Guest
	p.Hops[2].Device.Name = "ev\x1b[2Jil\u202e\n"
	p.Hops[2].Device.RX.Since = &Change{PacketsPerSecond: 7}
	p.Hops[0].Route.Gateway = p.Hops[0].Route.Gateway.WithZone("")
	p.End = strings.Repeat("x", 1000)
	b, err := Encode(*p)
	require.NoError(t, err)
	got, err := Decode(b)
	require.NoError(t, err)
	assert.Equal(t, `ev\x1b[2Jil\u202e\n`, got.Hops[2].Device.Name)
	assert.Nil(t, got.Hops[2].Device.RX.Since, "a guest tells no rates")
	assert.Len(t, got.End, maxText+len("..."))
	assert.Equal(t, p.Hops[7], got.Hops[7])
}

func TestDecodeRefuses(t *testing.T) {
	many := `{"namespaces":[{}],"hops":[` + strings.Repeat(`{"device":{}},`, 2*maxHops) + `{"device":{}}]}`
	tests := []struct{ name, json, why string }{
		{"no json", "nonsense", "malformed path"},
		{"too long", strings.Repeat(" ", MaxEncoded+1), "at most"},
		{"no such namespace", `{"hops":[{"namespace":0,"device":{}}]}`, "is in namespace 0 of 0"},
		{"negative namespace", `{"namespaces":[{}],"hops":[{"namespace":-1,"device":{}}]}`, "is in namespace -1"},
		{"empty hop", `{"namespaces":[{}],"hops":[{}]}`, "hop 0 is 0 things"},
		{"two in one", `{"namespaces":[{}],"hops":[{"device":{},"route":{}}]}`, "hop 0 is 2 things"},
		{"many hops", many, "129 hops"},
		{"many notes", `{"notes":[` + strings.Repeat(`"",`, maxList) + `""]}`, "a list of 513"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.json))
			require.ErrorIs(t, err, errPath)
			assert.ErrorContains(t, err, tt.why)
		})
	}
}

func TestDecodeZone(t *testing.T) {
	got, err := Decode([]byte(`{"namespaces":[{}],"hops":[{"route":{"gateway":"fe80::1%\u001b[2J"}}]}`))
	require.NoError(t, err)
	assert.Equal(t, "fe80::1", got.Hops[0].Route.Gateway.String())
}

// A path that is too long loses counters first, then chains.
func TestEncodeFits(t *testing.T) {
	full := func(chains, counters int) Path {
		var p Path
		p.Namespaces = []Namespace{{}}
		h := &Hook{}
		for i := range chains {
			c := Chain{Name: fmt.Sprintf("%0200d", i)}
			for range counters {
				c.Counters = append(c.Counters, RuleCounter{Chain: c.Name})
			}
			h.Chains = append(h.Chains, c)
		}
		p.Hops = []Hop{{Hook: h}}
		return p
	}
	tests := []struct {
		name                      string
		chains, counters          int
		wantChains, wantUncounted int
		note                      string
	}{
		{"fits", 10, 3, 10, 0, ""},
		{"too many counters", 100, 32, 100, 32, "too many rules"},
		{"too many chains", 1000, 1, 16, 1, "too many chains"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Encode(full(tt.chains, tt.counters))
			require.NoError(t, err)
			require.LessOrEqual(t, len(b), MaxEncoded)
			p, err := Decode(b)
			require.NoError(t, err)
			assert.Len(t, p.Hops[0].Hook.Chains, tt.wantChains)
			assert.Equal(t, tt.wantUncounted, p.Hops[0].Hook.Chains[0].Uncounted)
			assert.Contains(t, strings.Join(p.Notes, "\n"), tt.note)
		})
	}
}

// FuzzDecode shows what any guest may tell, and asks for bounds and for a text
// without control characters.
func FuzzDecode(f *testing.F) {
	b, err := json.Marshal(sample(1).Guest)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"namespaces":[{"name":"\u0007"}],"hops":[{"namespace":0,"route":{"to":"\u001b"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		r := &Report{Guest: p}
		r.Since(r)
		var text strings.Builder
		require.NoError(t, r.Write(&text))
		for _, c := range text.String() {
			if c != '\n' && c < ' ' || c == 0x7f || c == 0x9b {
				t.Fatalf("%q in %q", c, text.String())
			}
		}
	})
}
