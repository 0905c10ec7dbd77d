package rtnl

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attribute is a netlink attribute (struct nlattr) without the flag bits of its
// type.
type attribute struct {
	kind  uint16
	value []byte
}

// parseAttrs reads a sequence of attributes. The library's own parser panics
// when the last one isn't padded.
func parseAttrs(b []byte) ([]attribute, error) {
	var attrs []attribute
	for len(b) >= unix.SizeofRtAttr {
		size := int(nl.NativeEndian().Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, fmt.Errorf("attribute of %d bytes in %d", size, len(b))
		}
		kind := nl.NativeEndian().Uint16(b[2:]) & nl.NLA_TYPE_MASK
		attrs = append(attrs, attribute{kind, b[unix.SizeofRtAttr:size]})
		b = b[min(size+(-size&3), len(b)):] // padded to four bytes
	}
	return attrs, nil
}

// eachAttr calls f for each attribute in b, as far as they are well-formed.
func eachAttr(b []byte, f func(kind uint16, value []byte)) {
	attrs, err := parseAttrs(b)
	if err != nil {
		return
	}
	for _, a := range attrs {
		f(a.kind, a.value)
	}
}
