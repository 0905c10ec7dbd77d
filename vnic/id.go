package vnic

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// idBytes is the size of an ID: with the prefix, its ten hex digits leave two
// of the fifteen characters that Linux grants an interface name.
const idBytes = 5

// Prefix starts the name of every device that brfuse makes.
const Prefix = "brf"

// ID identifies an attachment: ten lower-case hex digits. It is random, so two
// attachments of the same pod and interface, one after the other, never share
// a device name.
type ID string

// NewID returns a random ID. The caller checks it against its store: 40 bits
// make a collision unlikely, not impossible.
func NewID() ID {
	var b [idBytes]byte
	rand.Read(b[:])
	return ID(hex.EncodeToString(b[:]))
}

// ParseID checks s and returns it as an ID. The error is [ErrInvalid].
func ParseID(s string) (ID, error) {
	if len(s) != 2*idBytes || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("attachment id %q is not %d lower-case hex digits: %w", s, 2*idBytes, ErrInvalid)
	}
	return ID(s), nil
}

// TapName is the name of the attachment's tap on the host.
func (id ID) TapName() string { return Prefix + string(id) }

// DeviceID is the id of the attachment's device in QEMU.
func (id ID) DeviceID() string { return Prefix + string(id) }

// NetdevID is the id of the attachment's network backend in QEMU.
func (id ID) NetdevID() string { return Prefix + "n" + string(id) }

// LinkName is the name a guest gives the vNIC while it is outside of a pod.
func (id ID) LinkName() string { return Prefix + string(id) }

// IDFromName returns the ID in a name made by one of the methods of ID, and
// whether name is such a name.
func IDFromName(name string) (ID, bool) {
	rest, ok := strings.CutPrefix(name, Prefix)
	if !ok {
		return "", false
	}
	if len(rest) == 2*idBytes+1 {
		if rest, ok = strings.CutPrefix(rest, "n"); !ok {
			return "", false
		}
	}
	id, err := ParseID(rest)
	return id, err == nil
}
