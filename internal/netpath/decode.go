package netpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of a path from elsewhere.
const (
	// MaxEncoded is how many bytes of JSON a path has at most.
	MaxEncoded = 192 << 10
	maxText    = 255 // bytes of a text
	maxList    = 512 // elements of a list
)

// errPath is returned when a path from elsewhere makes no sense.
var errPath = errors.New("malformed path")

// Encode writes a path as JSON of at most [MaxEncoded] bytes. Counters of rules,
// then chains, are left out of one that is longer, and a note says so.
func Encode(p Path) ([]byte, error) {
	for _, smaller := range []func(*Path){func(*Path) {}, (*Path).dropCounters, (*Path).dropChains} {
		smaller(&p)
		b, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode path: %w", err)
		}
		if len(b) <= MaxEncoded {
			return b, nil
		}
	}
	return nil, fmt.Errorf("encode path: more than %d bytes", MaxEncoded)
}

func (p *Path) dropCounters() {
	p.eachChain(func(c *Chain) {
		c.Uncounted += len(c.Counters)
		c.Counters = nil
	})
	p.Notes = append(p.Notes, "there are too many rules with counters: none is told")
}

func (p *Path) dropChains() {
	const most = 16
	for i := range p.Hops {
		if h := p.Hops[i].Hook; h != nil {
			h.Chains = h.Chains[:min(most, len(h.Chains))]
		}
		if d := p.Hops[i].Device; d != nil {
			d.Chains = d.Chains[:min(most, len(d.Chains))]
			d.Qdiscs = d.Qdiscs[:min(most, len(d.Qdiscs))]
		}
	}
	p.Notes = append(p.Notes, fmt.Sprintf("there are too many chains: no more than %d of a hook are told", most))
}

func (p *Path) eachChain(f func(*Chain)) {
	for i := range p.Hops {
		var chains []Chain
		if h := p.Hops[i].Hook; h != nil {
			chains = h.Chains
		}
		if d := p.Hops[i].Device; d != nil {
			chains = d.Chains
		}
		for j := range chains {
			f(&chains[j])
		}
	}
}

// Decode reads a path that something not trusted has written. What comes out is
// bounded, its texts have no control characters, and its hops are whole.
func Decode(b []byte) (*Path, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("%w: %d bytes, at most %d make sense", errPath, len(b), MaxEncoded)
	}
	var p Path
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("%w: %w", errPath, err)
	}
	if len(p.Hops) > 2*maxHops || len(p.Namespaces) > maxNamespaces {
		return nil, fmt.Errorf("%w: %d hops in %d namespaces", errPath, len(p.Hops), len(p.Namespaces))
	}
	for i, h := range p.Hops {
		if h.Namespace < 0 || h.Namespace >= len(p.Namespaces) {
			return nil, fmt.Errorf("%w: hop %d is in namespace %d of %d", errPath, i, h.Namespace, len(p.Namespaces))
		}
		if kinds := count(h.Device != nil, h.Hook != nil, h.Route != nil); kinds != 1 {
			return nil, fmt.Errorf("%w: hop %d is %d things", errPath, i, kinds)
		}
	}
	if err := clean(reflect.ValueOf(&p).Elem()); err != nil {
		return nil, err
	}
	p.counts(func(_ string, c *Count) { c.Since = nil }) // rates are for the reader to say
	return &p, nil
}

func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// clean makes all texts below v fit to be shown, and refuses long lists.
func clean(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(Printable(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			return clean(v.Elem())
		}
	case reflect.Slice:
		if v.Len() > maxList {
			return fmt.Errorf("%w: a list of %d, at most %d make sense", errPath, v.Len(), maxList)
		}
		for i := range v.Len() {
			if err := clean(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		if a, ok := reflect.TypeAssert[*netip.Addr](v.Addr()); ok {
			*a = a.WithZone("") // a zone is any text
			return nil
		}
		for _, f := range v.Fields() {
			if err := clean(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Printable returns s with what is not printable escaped, and cut where it is long.
func Printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return s
	}
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
