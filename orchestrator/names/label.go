package names

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// maxName is the longest name in text with its final dot: 255 octets on the wire
// (RFC 1035, section 3.1).
const maxName = 254

// labelChars are those of host names (RFC 1123, section 2.1), and '_', which pods'
// names may have.
const labelChars = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// Label returns the name that a pod or service has within the zone of its network,
// without a final dot:
//
//   - letters become lower case: "Web" and "web" are one name, as in all of DNS;
//   - a '.' in the name stays one, and gives a deeper name;
//   - what '/' separates is put into the order of DNS, so "shop/web" is "web.shop".
//
// So different pods may have one name, which then has the addresses of both. A name
// that has an empty part, one of more than 63 characters or one that starts with '_'
// (those are for services: RFC 8552) can't be served; the error is [vnic.ErrInvalid].
func Label(name string) (string, error) {
	parts := strings.Split(strings.ToLower(name), "/")
	slices.Reverse(parts)
	mapped := strings.Join(parts, ".")
	for label := range strings.SplitSeq(mapped, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("name %q in DNS: %w", name, err)
		}
	}
	if len(mapped) >= maxName {
		return "", fmt.Errorf("name %q in DNS: %d characters are more than %d: %w", name, len(mapped), maxName-1, vnic.ErrInvalid)
	}
	return mapped, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return fmt.Errorf("a part is empty: %w", vnic.ErrInvalid)
	case len(label) > 63:
		return fmt.Errorf("part %q is longer than 63 characters: %w", label, vnic.ErrInvalid)
	case label[0] == '_':
		return fmt.Errorf("part %q starts with '_': %w", label, vnic.ErrInvalid)
	case strings.Trim(label, labelChars) != "":
		return fmt.Errorf("part %q: use letters, digits, '-' and '_': %w", label, vnic.ErrInvalid)
	}
	return nil
}

// below says whether name is apex or below it. Both are canonical (lower case, with a
// final dot); name comes from outside, and may have escaped dots.
func below(name, apex string) bool {
	head, ok := strings.CutSuffix(name, apex)
	if !ok || head == "" {
		return ok
	}
	if !strings.HasSuffix(head, ".") {
		return false
	}
	head = strings.TrimSuffix(head, ".")
	return (len(head)-len(strings.TrimRight(head, `\`)))%2 == 0
}

// parent returns a name without its first label, which has no escaped dot.
func parent(name string) string {
	_, rest, _ := strings.Cut(name, ".")
	return rest
}
