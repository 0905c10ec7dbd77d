package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxFields bounds the fields of a request or an answer: an empty submessage
	// takes two bytes on the wire and a hundred times that in memory.
	maxFields = 4096
	// maxEnvelope does the same for ttrpc's own messages around them, and for the
	// status in an answer. This side writes three fields into either.
	maxEnvelope = 64
)

// Numbers of fields in ttrpc's messages (its request.proto).
const (
	requestPayload = 3
	responseStatus = 1
)

// checkEnvelope bounds what decoding a message of ttrpc can take, a request's or
// an answer's, before anyone decodes it. What an answer has in its payload is the
// affair of its call; see checkFields.
func checkEnvelope(b []byte, request bool) error {
	inner := map[protowire.Number]int{responseStatus: maxEnvelope}
	if request {
		inner = map[protowire.Number]int{requestPayload: maxFields}
	}
	return eachField(b, maxEnvelope, func(num protowire.Number, value []byte) error {
		limit, ok := inner[num]
		if !ok || value == nil {
			return nil
		}
		return eachField(value, limit, func(protowire.Number, []byte) error { return nil })
	})
}

// checkFields bounds the number of top-level fields of a message.
func checkFields(b []byte) error {
	return eachField(b, maxFields, func(protowire.Number, []byte) error { return nil })
}

// eachField calls fn for all fields of a message; value is nil when it is not of
// bytes.
func eachField(b []byte, limit int, fn func(num protowire.Number, value []byte) error) error {
	for n := 0; len(b) > 0; n++ {
		num, typ, head := protowire.ConsumeTag(b)
		size := protowire.ConsumeFieldValue(num, typ, b[max(head, 0):])
		switch {
		case head < 0 || size < 0:
			return fmt.Errorf("message can't be read: %w: %w", protowire.ParseError(min(head, size)), errProtocol)
		case n == limit:
			return fmt.Errorf("message has more than %d fields: %w", limit, errProtocol)
		}
		var value []byte
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b[head:])
		}
		if err := fn(num, value); err != nil {
			return err
		}
		b = b[head+size:]
	}
	return nil
}
